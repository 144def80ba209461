"""A saved W&B workspace with the panels that a run fills: is it healthy, what bounds it, what does it get wrong."""

from typing import Any

from distcls.tracking.report_series import PHASES, SHARES

X = "progress/samples"  # does not change with batch size or number of GPUs

# Section -> panels: title and metrics; a single metric without a title is its own.
SECTIONS: dict[str, list[tuple[str, list[str]]]] = {
    "Is it healthy": [
        ("loss", ["train/loss", "val/loss", "val_ema/loss"]),
        ("top-1", ["train/top1", "val/top1", "val_ema/top1"]),
        ("top-5", ["train/top5", "val/top5", "val_ema/top5"]),
        ("learning rate", ["optim/lr"]),
        ("gradient norm", ["optim/grad_norm"]),
        ("loss scale (fp16)", ["optim/loss_scale"]),
    ],
    "What bounds it": [
        ("share of time", [f"{SHARES}{phase}" for phase in PHASES]),
        ("images/s", ["perf/img_per_s"]),
        ("images/s per GPU", ["perf/img_per_s_per_gpu"]),
        ("step time, ms", ["perf/step_ms"]),
        ("waiting for data", ["perf/data_wait_frac"]),
        ("model FLOPs utilisation", ["perf/mfu"]),
        ("GPU utilisation", ["perf/gpu_util"]),
        ("memory, GiB", ["perf/mem_gb", "perf/rss_gb"]),
        ("checkpoint stall, s", ["perf/checkpoint_stall_s"]),
    ],
}
TABLES = ["predictions/worst", "predictions/confused", "predictions/classes"]  # of the last evaluation


def workspace(entity: str, project: str, name: str = "distcls") -> Any:
    """A workspace ready to `save`; needs the extra `workspace`.

    Raises:
        ImportError: wandb-workspaces is not installed.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(
            name=title,
            panels=[
                panels.LinePlot(title=name, x=X, y=[*metrics], plot_type="stacked-area" if "share" in name else "line")
                for name, metrics in plots
            ],
            is_open=True,
        )
        for title, plots in SECTIONS.items()
    ]
    mistakes: list[Any] = [panels.MediaBrowser(title="confusion", media_keys=["predictions/confusion"])]
    mistakes += [panels.WeavePanelSummaryTable(table_name=table) for table in TABLES]
    sections.append(workspaces.Section(name="What it gets wrong", panels=mistakes, is_open=True))
    best: list[Any] = [panels.ScalarChart(title="best val top-1", metric=panels.SummaryMetric("best/val_top1"))]
    sections.insert(0, workspaces.Section(name="Best", panels=best, is_open=True))
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=X),
        auto_generate_panels=False,
    )
