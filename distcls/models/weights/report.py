"""Report on what became of each entry of a checkpoint."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SHOWN = 3  # names per line


@dataclass
class Report:
    """Every entry of the file is loaded, dropped or unused; every one of the model is loaded or missing.

    Attributes:
        source: library whose names the file has.
        loaded: names in the model.
        renamed: (name in the file, name in the model) of loaded entries where they differ.
        resized: loaded position embeddings and bias tables that were interpolated.
        dropped: (name in the model, shape in the file, shape in the model) of classifiers for other classes.
        misfits: the same for other entries of another shape.
        unused: names in the file that the model does not have.
        missing: names in the model that keep their initial values.
        beyond: those of `unused` that belong to a part of the backbone that the model has as well.
        match: fraction of the backbone's parameter elements that were loaded.
        notes: about the file.
        warnings: what the user should look into.
    """

    path: Path
    source: str
    loaded: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[tuple[str, torch.Size, torch.Size]] = field(default_factory=list)
    misfits: list[tuple[str, torch.Size, torch.Size]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    match: float = 0.0
    notes: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """The report as numbers, for an event."""
        kinds = ("loaded", "renamed", "resized", "dropped", "misfits", "unused", "missing")
        return {"path": str(self.path), "source": self.source, "match": round(self.match, 4)} | {
            kind: len(getattr(self, kind)) for kind in kinds
        }

    def lines(self) -> list[str]:
        """The report as text: a summary, then one line for each kind of entry that occurs."""
        heading = (
            f"weights from {self.path} ({self.source}): {len(self.loaded)} entries loaded, "
            f"{self.match:.1%} of the backbone's parameter elements"
        )
        kinds: list[tuple[str, Sequence[str]]] = [
            ("renamed", [f"{old} -> {new}" for old, new in self.renamed]),
            ("resized", self.resized),
            ("dropped, for another number of classes", _shapes(self.dropped)),
            ("not loaded, of another shape", _shapes(self.misfits)),
            ("unused", self.unused),
            ("missing, kept as initialised", self.missing),
        ]
        listed = [f"  {len(items)} {kind}: {some(items)}" for kind, items in kinds if items]
        return [heading, *listed, *(f"  {note}" for note in self.notes)]


def some(items: Sequence[str]) -> str:
    """The first few items, followed by dots if there are more."""
    return ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")


def _shapes(entries: Iterable[tuple[str, torch.Size, torch.Size]]) -> list[str]:
    return [f"{name} {list(theirs)}, not {list(ours)}" for name, theirs, ours in entries]
