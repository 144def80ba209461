"""Lists as MMPretrain's ann_file: on each line the path of an image and the number of its class."""

from pathlib import Path

from distcls.data.class_names import read_class_names
from distcls.data.converting.image_files import ImageFiles, shortened
from distcls.data.errors import DataError
from distcls.data.text_file import lines_of

_MOST_CLASSES = 1_000_000  # each up to the largest number gets a name: beyond, it is an identifier or a slip
_MOST_DIGITS = 100  # Python refuses to read thousands


class AnnotationSource(ImageFiles):
    """``sub/1.jpg 17`` a line, with spaces or a tab between; paths may hold spaces.

    Args:
        path: the list.
        image_root: folder that its paths are relative to; the list's own if None.
        classes: a text file of the classes, one a line, in the order of their numbers; if None, the numbers are their
            names.
    """

    listed = True

    def __init__(self, path: Path, image_root: Path | None = None, classes: Path | None = None) -> None:
        super().__init__(image_root or path.parent)
        for number, line in enumerate(lines_of(path), 1):
            if not line.strip():
                continue
            *file, label = line.strip().rsplit(maxsplit=1)
            if not file or not label.isdecimal():
                raise DataError(
                    f"{path}:{number}: got {shortened(line)}, expected the path of an image and its class number"
                )
            if len(label) > _MOST_DIGITS or int(label) >= _MOST_CLASSES:
                raise DataError(
                    f"{path}:{number}: got class number {shortened(label)[1:-1]}, expected one below {_MOST_CLASSES}: "
                    "classes count from 0"
                )
            self.files.append((file[0], int(label)))
        if not self.files:
            raise DataError(f"{path}: lists no images")
        largest = max(label for _, label in self.files)
        self.class_names = (
            _names(read_class_names(classes)) if classes else [str(label) for label in range(largest + 1)]
        )
        if largest >= len(self.class_names):
            raise DataError(
                f"{path}: got class number {largest}, expected 0..{len(self.class_names) - 1}, the lines of {classes}"
            )

    def fingerprint(self, indices: list[int] | None = None) -> str:
        """Over names, sizes and labels."""
        return super().fingerprint(list(range(len(self))) if indices is None else indices)


def _names(lines: list[str]) -> list[str]:
    """Of Awesome-Backbones' annotations.txt, where each name is followed by its number: the names.

    Not of ``class 0, class 1, ...``: without their numbers these are one name.
    """
    numbered = all(line.endswith(f" {number}") for number, line in enumerate(lines))
    names = [line.rpartition(" ")[0] for line in lines]
    return names if numbered and len(set(names)) == len(names) else lines
