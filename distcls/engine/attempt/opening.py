"""What the ranks of an attempt do together first: compare code, recipe and data, and open the run folder."""

import shutil
from pathlib import Path

import torch

from distcls.data.augmenting.draws import AUGMENT_VERSION
from distcls.data.decoding.jpeg_window import window_decoder
from distcls.data.sampling.order import ORDER_VERSION
from distcls.engine.attempt.preparing import Prepared
from distcls.engine.ranks import collectives, heartbeat
from distcls.engine.ranks.code_version import code_version
from distcls.engine.records.run_folder import RunFolder, Start
from distcls.recipe.refill import refilled
from distcls.recipe.yaml12 import to_yaml


def check_same(prepared: Prepared) -> None:
    """Check that code, recipe, plug-ins and data are the same on all ranks. Collective.

    Raises:
        UserError: the first difference, and the rank that has it.
    """
    collectives.same_on_all_ranks(
        {
            "code": code_version(),
            "recipe": prepared.recipe.resolved(),
            "plug-ins": {Path(plugin.name).name: plugin.sha256[:16] for plugin in prepared.plugins},
            **prepared.fingerprints(),
            "JPEG decoding (launch/setup.sh compiles it)": window_decoder().name,
        }
    )


def open_folder(prepared: Prepared, rank: int, ranks: int) -> tuple[RunFolder, Start]:
    """Rank 0 locks the run folder and adds this attempt; all ranks get the folder and its Start. Collective.

    Raises:
        UserError: on all ranks, see `RunFolder.begin`.
    """
    folder = RunFolder(Path(prepared.recipe.output_dir))
    return folder, collectives.on_rank_zero(rank, lambda: _begin(folder, prepared, ranks))


def _begin(folder: RunFolder, prepared: Prepared, ranks: int) -> Start:
    resolved = prepared.recipe.resolved()
    start = folder.begin(
        resolved,
        recipe_yaml=to_yaml(resolved),
        fingerprints=prepared.fingerprints(),
        world_size=ranks,
        threads=torch.get_num_threads(),
        versions={"jpeg": window_decoder().name, "order": f"{ORDER_VERSION}", "augment": f"{AUGMENT_VERSION}"},
        resume=prepared.recipe.checkpoint.resume,
        allow_changes=prepared.recipe.checkpoint.allow_changes,
        refill=refilled,
    )
    heartbeat.clear(folder.path / "heartbeat")
    for plugin in prepared.plugins:
        if plugin.file.is_file():
            (folder.path / "plugins").mkdir(exist_ok=True)
            shutil.copyfile(plugin.file, folder.path / "plugins" / f"{plugin.sha256[:12]}_{plugin.file.name}")
    return start
