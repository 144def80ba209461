"""Identifies the code that a rank runs, so that ranks can compare it."""

import contextlib
import hashlib
import importlib.metadata
from pathlib import Path

from distcls.version import __version__

# Packages that affect the numbers. Another version of wandb or rich does not change the training.
PACKAGES = ("torch", "torchvision", "accelerate", "deepspeed", "timm", "ffcv", "numba", "numpy", "safetensors")


def code_version() -> dict[str, str]:
    """The version of distcls, a hash of its sources, and the versions of the packages that affect the numbers."""
    version = {"distcls": __version__, "distcls sources": sources_hash(Path(__file__).parents[2])}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # an extra that is not installed
            version[name] = importlib.metadata.version(name)
    return version


def sources_hash(package: Path) -> str:
    """sha256 over the names and contents of all .py files of a package, first 16 hex digits.

    The version alone does not tell two checkouts apart. The package's location and its .pyc files do not count.
    """
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
