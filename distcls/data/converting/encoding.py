"""How images are stored in a .beton: the options of FFCV's RGBImageField."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distcls.data.converting.sources import Source
from distcls.data.errors import DataError

SAMPLED = 200  # images encoded to estimate the stored size
WRITE_MODES = ("raw", "jpg", "proportion", "smart")
_LONGEST_SIDE, _LONGEST_SIDE_OF_A_JPEG = (1 << 16) - 1, 65500  # limit of .beton; libjpeg's JPEG_MAX_DIMENSION


@dataclass(frozen=True)
class Encoding:
    """Storage options, as FFCV's RGBImageField takes them.

    Args:
        write_mode: raw (pixels); jpg; proportion (a random share as JPEG); smart (JPEG for images of more than
            `smart_threshold` bytes of pixels). None: raw for a source of small images, else jpg.
        max_resolution: larger images are shrunk so that their longer side has this many pixels.
        quality: of JPEG, 1..100.
        compress_probability: share of images stored as JPEG, for write mode proportion.
        smart_threshold: bytes, for write mode smart.

    Raises:
        DataError: one of them is out of range.
    """

    write_mode: str | None = None
    max_resolution: int | None = None
    quality: int = 90
    compress_probability: float = 0.5
    smart_threshold: int = 512 * 1024

    def __post_init__(self) -> None:
        if self.write_mode is not None and self.write_mode not in WRITE_MODES:
            raise DataError(f"--write-mode: got {self.write_mode!r}, expected one of {', '.join(WRITE_MODES)}")
        if self.max_resolution is not None and not 0 < self.max_resolution < 65536:
            raise DataError(f"--max-resolution: got {self.max_resolution}, expected pixels between 1 and 65535")
        if not 1 <= self.quality <= 100:
            raise DataError(f"--quality: got {self.quality}, expected 1..100")
        if not 0 <= self.compress_probability <= 1:
            raise DataError(f"--compress-probability: got {self.compress_probability}, expected 0..1")

    def mode(self, source: Source) -> str:
        return self.write_mode or ("raw" if source.small else "jpg")

    def field(self, source: Source) -> Any:
        """An ffcv.fields.RGBImageField."""
        from ffcv.fields import RGBImageField

        return RGBImageField(
            write_mode=self.mode(source),
            max_resolution=self.max_resolution,
            smart_threshold=self.smart_threshold,
            jpeg_quality=self.quality,
            compress_probability=self.compress_probability,
        )

    def described(self, source: Source) -> dict[str, int | float | str | None]:
        """The options as recorded in the sidecar."""
        mode = self.mode(source)
        return {
            "mode": mode,
            "max_resolution": self.max_resolution,
            "quality": self.quality,
            "compress_probability": self.compress_probability if mode == "proportion" else None,
            "smart_threshold": self.smart_threshold if mode == "smart" else None,
        }

    def bytes_per_image(self, source: Source) -> float:
        """Mean stored size of SAMPLED images spread evenly over the source; unreadable ones are left out."""
        field = self.field(source)
        record, sizes = np.zeros(1, field.metadata_type), []

        def allocate(size: int) -> tuple[int, np.ndarray]:
            sizes.append(size)
            return 0, np.empty(size, np.uint8)

        for index in np.unique(np.linspace(0, len(source) - 1, SAMPLED).astype(int)).tolist():
            try:
                image, _ = source[index]
            except DataError:
                continue
            np.random.seed(index)  # decides what is compressed in write mode proportion
            field.encode(record, image, allocate)
        return float(np.mean(sizes)) if sizes else 1.0


def refuse_sides(field: Any, name: str, height: int, width: int) -> None:
    """Refuse an image too large for a .beton, or whose shorter side FFCV's max_resolution would round down to 0.

    Args:
        field: an ffcv.fields.RGBImageField.
        name: of the image, for the message.
        height, width: of the image in pixels.

    Raises:
        DataError: it cannot be stored.
    """
    got, longest, limit = f"{name}: got {width}x{height} pixels", max(height, width), field.max_resolution
    if limit is not None and longest > limit:
        if int(limit / longest * min(height, width)) < 1:
            raise DataError(f"{got}, whose shorter side --max-resolution {limit} shrinks to nothing: give more")
        longest = limit
    most = _LONGEST_SIDE if field.write_mode == "raw" else _LONGEST_SIDE_OF_A_JPEG
    if longest > most:
        raise DataError(f"{got}, expected sides of {most} at most: use --max-resolution")
