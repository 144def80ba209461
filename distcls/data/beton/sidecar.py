"""The JSON sidecar of a .beton, for what the format cannot store: class names, statistics, how it was written."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distcls.data.errors import DataError

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Three = Field(min_length=3, max_length=3)


class Sizes(BaseModel):
    """Image sizes in pixels as stored, each a list of minimum, median and maximum."""

    height: Annotated[list[int], _Three]
    width: Annotated[list[int], _Three]

    @classmethod
    def of(cls, table: np.ndarray) -> "Sizes":
        """Of a table of `beton.SAMPLE`."""
        sides = {side: table[side] for side in ("height", "width")}
        return cls(**{side: [int(all_.min()), int(np.median(all_)), int(all_.max())] for side, all_ in sides.items()})


class Sidecar(BaseModel):
    """Contents of OUT.json.

    `mean` and `std` are per RGB channel over all pixels (each image with the same weight) on the scale 0..1, like
    torchvision's and timm's constants. With `multi_label`, an image counts in `class_counts` for each of its classes.
    `fingerprint` is `fingerprint_of` the .beton; `sha256` is the hash of all its bytes, if known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    fingerprint: str
    sha256: str | None = None
    samples: int
    class_names: Annotated[list[str], Field(min_length=1)]
    class_counts: list[Annotated[int, Field(ge=0)]]
    multi_label: bool = False
    mean: Annotated[list[_Finite], _Three]
    std: Annotated[list[Annotated[_Finite, Field(gt=0)]], _Three]
    sizes: Sizes
    bytes: int
    jpeg_samples: int
    write: dict[str, int | float | str | None]
    source: dict[str, int | float | str | None]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _one_count_per_class(self) -> "Sidecar":
        if len(self.class_counts) != len(self.class_names):
            raise ValueError(f"got {len(self.class_counts)} class_counts for {len(self.class_names)} class_names")
        return self


def sidecar_path(beton: Path) -> Path:
    """train.beton -> train.json."""
    return beton.with_suffix(".json")


def fingerprint_of(file: np.ndarray, data_at: int) -> str:
    """A fingerprint of a mapped .beton that needs to read only a small part of the file.

    SHA-256 over the file size, everything before the first image (header and all metadata records: label, height, width
    and pointer of every sample) and 256 blocks of 4 KiB spread evenly from the first image to the end of the file.

    Args:
        file: the file's bytes.
        data_at: offset of the first image.
    """
    block = 4096
    digest = hashlib.sha256(str(len(file)).encode())
    digest.update(file[:data_at].data)
    for start in np.linspace(data_at, max(len(file) - block, data_at), 256).astype(np.int64):
        digest.update(file[start : start + block].data)
    return f"sha256-sampled:{digest.hexdigest()}"


def deviation(mean: np.ndarray, square: np.ndarray) -> list[float]:
    """Standard deviations from means and mean squares on the scale 0..1.

    At least one grey level (1/255), because images are divided by it: in a data set of one colour it would be 0, or
    NaN where rounding makes the variance negative.
    """
    return np.sqrt(np.maximum(square - mean**2, 1 / 255**2)).tolist()


def read_sidecar(beton: Path) -> Sidecar:
    """The sidecar of `beton`.

    Raises:
        DataError: it is missing or not a sidecar.
    """
    path = sidecar_path(beton)
    again = (
        f"Copy it from where {beton.name} came from; for a file of ffcv-imagenet write it with "
        f"`distcls data describe {beton} --class-names FILE`; or write both again with `distcls data convert`."
    )
    if not path.is_file():
        what = "not a regular file" if path.exists() else "no such file"
        raise DataError(f"{path}: {what}: the class names and statistics of {beton} are in it. {again}")
    try:
        content = json.loads(path.read_bytes())
        json.dumps(content, ensure_ascii=False).encode()  # names with half a character cannot be printed
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}), expected the sidecar of {beton}. {again}") from None
    try:
        return Sidecar.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{path}: not the sidecar of {beton}: {key}: {first['msg']}. {again}") from None
