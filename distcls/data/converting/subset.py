"""A part of a source, or the whole in another order."""

from typing import Any

import numpy as np

from distcls.data.converting.sources import Source


class Subset:
    """The images `indices` (n,) of `source`, in that order, as a Source."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        if isinstance(source, Subset):  # refer to the underlying source directly
            indices = np.array(source._indices)[indices]
            source = source.source
        self.source: Source = source
        self.class_names, self.small, self.multi_label = source.class_names, source.small, source.multi_label
        self._indices: list[int] = indices.tolist()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        return self.source[self._indices[index]]

    def name_of(self, index: int) -> str:
        return self.source.name_of(self._indices[index])

    def pixels_of(self, index: int) -> int:
        return self.source.pixels_of(self._indices[index])

    def fingerprint(self, indices: list[int] | None = None) -> str:
        return self.source.fingerprint(self._of(indices))

    def _of(self, indices: list[int] | None) -> list[int]:
        return self._indices if indices is None else [self._indices[index] for index in indices]
