"""Lists as MMPretrain's ann_file: on each line the path of an image and the number of its class."""

from pathlib import Path

from distcls.data.converting.image_files import ImageFiles, read_lines, text_of
from distcls.data.errors import DataError

_MOST_CLASSES = 1_000_000  # each up to the largest number gets a name: beyond, it is an identifier or a slip


class AnnotationSource(ImageFiles):
    """``sub/1.jpg 17`` a line; paths may hold spaces.

    Args:
        path: the list.
        image_root: folder that its paths are relative to; the list's own if None.
        classes: a text file of the classes, one a line, in the order of their numbers; if None, the numbers are their
            names.
    """

    def __init__(self, path: Path, image_root: Path | None = None, classes: Path | None = None) -> None:
        super().__init__(image_root or path.parent)
        for number, line in enumerate(text_of(path).splitlines(), 1):
            file, _, label = line.strip().rpartition(" ")
            if not line.strip():
                continue
            if not file or not label.isdecimal():
                raise DataError(f"{path}:{number}: got {line!r}, expected the path of an image and its class number")
            if int(label) >= _MOST_CLASSES:
                raise DataError(
                    f"{path}:{number}: got class number {label}, expected one below {_MOST_CLASSES}: "
                    "classes count from 0"
                )
            self.files.append((file.strip(), int(label)))
        if not self.files:
            raise DataError(f"{path}: lists no images")
        largest = max(label for _, label in self.files)
        self.class_names = _names(read_lines(classes)) if classes else [str(label) for label in range(largest + 1)]
        if largest >= len(self.class_names):
            raise DataError(
                f"{path}: got class number {largest}, expected 0..{len(self.class_names) - 1}, the lines of {classes}"
            )

    def fingerprint(self, indices: list[int] | None = None) -> str:
        """Over names, sizes and labels."""
        return super().fingerprint(list(range(len(self))) if indices is None else indices)


def _names(lines: list[str]) -> list[str]:
    """Of Awesome-Backbones' annotations.txt, where each name is followed by its number: the names."""
    numbered = all(line.endswith(f" {number}") for number, line in enumerate(lines))
    return [line.rpartition(" ")[0] for line in lines] if numbered else lines
