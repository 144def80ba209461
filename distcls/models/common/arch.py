"""choose_arch: the settings behind an `arch` argument."""

from collections.abc import Mapping
from typing import Any

from distcls.errors import UserError
from distcls.registry import did_you_mean


def choose_arch(owner: str, arch: str | Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The settings that the name `arch` stands for, or `arch` itself where it is a mapping.

    Args:
        owner: class name, for the messages.
        known: settings by name. What all of them have, a mapping needs.

    Raises:
        UserError: an unknown name, or a mapping that lacks settings.
    """
    if not isinstance(arch, Mapping):
        if arch not in known:
            raise UserError(
                f"{owner}.arch: got {arch!r}.{did_you_mean(str(arch), known)} Known: {', '.join(known)}, "
                "or a mapping with settings of your own"
            )
        return known[arch]
    needed = [key for key in next(iter(known.values())) if all(key in settings for settings in known.values())]
    missing = [key for key in needed if key not in arch]
    if missing:
        raise UserError(f"{owner}.arch: {', '.join(missing)} missing; a mapping needs {', '.join(needed)}")
    return arch
