"""The workspace that `distcls track workspace` saves: valid as far as it can be known without W&B's own server."""

import json
import sys

import pytest

from distcls.tracking.wandb_workspace import SECTIONS, TABLES, X, workspace

pytestmark = pytest.mark.usefixtures("no_wandb_account")


def panels_of(spec):
    return [
        (section["name"], panel["viewType"], panel["config"])
        for section in spec["section"]["panelBankConfig"]["sections"]
        for panel in section["panels"]
    ]


def check(spec):
    found = panels_of(spec)
    lines = {config["chartTitle"]: config for _, kind, config in found if kind == "Run History Line Plot"}
    plots = dict(plot for section in SECTIONS.values() for plot in section)
    assert {title: config["metrics"] for title, config in lines.items()} == plots
    assert {config["xAxis"] for config in lines.values()} == {X}
    kinds = [kind for _, kind, _ in found]
    assert kinds.count("Media Browser") == 1
    assert kinds.count("Weave") == len(TABLES)


@pytest.mark.slow
def test_a_workspace_is_saved_with_the_panels_of_a_run(tmp_path, serve):
    server = serve("ok")
    tracking = {"project": "flowers", "entity": None, "name": None, "group": None, "tags": [], "notes": None}
    state = {"run_id": "run0", "status": "finished", "attempts": [{}], "recipe": {"name": "r", "tracking": tracking}}
    (tmp_path / "run.json").write_text(json.dumps(state))
    run = server.client("from distcls.cli.main import main; main()", "track", "workspace", tmp_path)
    (view,) = server.got()["views"]
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("team", "flowers", "distcls")
    assert view["type"] == "project-view"
    check(json.loads(view["spec"]))
    assert run.stdout.startswith(f"{server.url}/team/flowers?nw=")


def test_its_panels_are_what_training_logs():
    from pathlib import Path

    logged = Path(__file__).parents[2].joinpath("docs/tracking.md").read_text()
    for plots in SECTIONS.values():
        for _, metrics in plots:
            for name in metrics:
                assert f"`{name}`" in logged, f"{name} is not in docs/tracking.md"


def test_it_needs_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ImportError):
        workspace("team", "distcls")
