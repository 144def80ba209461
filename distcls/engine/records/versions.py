"""The package versions that an attempt runs with. Imports no torch."""

import contextlib
import importlib.metadata
import platform

from distcls.version import __version__

PACKAGES = ("torch", "torchvision", "accelerate", "deepspeed", "ffcv", "numpy", "safetensors", "wandb")


def installed_versions() -> dict[str, str]:
    """Package -> version, of distcls, Python and the packages that determine a run's numbers and files."""
    versions = {"distcls": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # an extra that is not installed
            versions[name] = importlib.metadata.version(name)
    return versions
