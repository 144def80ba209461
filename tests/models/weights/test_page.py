"""docs/weights.md says of every backbone which weights fit it."""

import re
from pathlib import Path

import distcls.models  # noqa: F401  (registers them)
from distcls.models.weights.load import LIBRARIES
from distcls.registry import BACKBONES

PAGE = (Path(__file__).parents[3] / "docs" / "weights.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = ROWS[[row[0] for row in ROWS].index("backbone") + 2 :]


def test_every_backbone_is_named() -> None:
    named = {name for row in ROWS for name in re.findall(r"\w+", row[0])}
    ours = {name for name in BACKBONES.names() if BACKBONES[name].__module__.startswith("distcls.")}
    assert ours <= named


def test_a_mapping_is_claimed_where_there_is_one() -> None:
    for column, library in ((1, "torchvision"), (2, "timm")):
        for row in ROWS:
            backbone = BACKBONES[re.findall(r"\w+", row[0])[0]]
            mapped = any(cls.__name__ in LIBRARIES[library] for cls in backbone.__mro__)
            if not mapped:
                assert not row[column].startswith(("equal", "the same")), row
