"""Lists in the format of MMPretrain's ann_file: each line holds the path of an image and its class number."""

from pathlib import Path

from distcls.data.class_names import read_class_names
from distcls.data.converting.image_files import ImageFiles, shortened
from distcls.data.errors import DataError
from distcls.data.text_file import lines_of

_MOST_CLASSES = 1_000_000  # every number up to the largest gets a name; a larger one is an identifier or a typo
_MOST_DIGITS = 100  # int() refuses strings of thousands of digits


class AnnotationSource(ImageFiles):
    """A list with lines like ``sub/1.jpg 17``, separated by spaces or a tab; paths may contain spaces.

    Args:
        path: the list.
        image_root: folder to which its paths are relative; None: the list's own folder.
        classes: a text file with one class name per line, in the order of the class numbers; None: the numbers are the
            names.

    Raises:
        DataError: a line is malformed, there are no images, or a class number is too large.
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
        """Hash of file names, sizes and labels."""
        return super().fingerprint(list(range(len(self))) if indices is None else indices)


def _names(lines: list[str]) -> list[str]:
    """The class names, without the number that follows each name in Awesome-Backbones' annotations.txt.

    Names such as ``class 0, class 1, ...`` are kept: without their numbers they would be the same.
    """
    numbered = all(line.endswith(f" {number}") for number, line in enumerate(lines))
    names = [line.rpartition(" ")[0] for line in lines]
    return names if numbered and len(set(names)) == len(names) else lines
