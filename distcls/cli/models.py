"""`distcls models [PATTERN]`: the backbones that a recipe can name, ours and those of timm and torchvision."""

import fnmatch
import importlib.util
import re
from pathlib import Path
from typing import Annotated

import typer

from distcls.errors import UserError
from distcls.registry import did_you_mean

#: How a recipe names a model, its library's folder of models, and what stands before each of them in its source.
LIBRARIES = {
    "distcls": ("{{type: {name}}}", "distcls/models/backbones", r"@BACKBONES\.register\nclass (\w+)"),
    "timm": ("{{type: TimmBackbone, model_name: {name}}}", "timm/models", r"@register_model\ndef (\w+)"),
    "torchvision": (
        "{{type: TorchvisionBackbone, model_name: {name}}}",
        "torchvision/models",
        r"@register_model\(\)\n(?:@.*\n)*def (\w+)",
    ),
}
WRAPPERS = ("TimmBackbone", "TorchvisionBackbone")


def models(
    pattern: Annotated[
        str,
        typer.Argument(metavar="PATTERN", help="Part of a name, or a pattern with * and ?. Case is ignored."),
    ] = "*",
    library: Annotated[
        str | None, typer.Option("--library", help="List only those of distcls, timm or torchvision.")
    ] = None,
) -> None:
    """List backbones of distcls, timm and torchvision, each with its block for a recipe."""
    if library not in (None, *LIBRARIES):
        raise UserError(f"--library: got {library!r}, expected {', '.join(LIBRARIES)}")
    wanted = pattern.lower() if any(sign in pattern for sign in "*?[") else f"*{pattern.lower()}*"
    named = [(source, name) for source in LIBRARIES if library in (None, source) for name in names(source)]
    family = pattern.lower().rstrip("0123456789")  # resnet50 is our ResNet with depth 50
    found = [
        (source, name)
        for source, name in named
        if fnmatch.fnmatchcase(name.lower(), wanted) or (source == "distcls" and name.lower() == family)
    ]
    if not found:
        raise UserError(f"no backbone's name matches {pattern!r}.{did_you_mean(pattern, [name for _, name in named])}")
    for source, name in found:
        typer.echo(f"{source:<12} {LIBRARIES[source][0].format(name=name)}")


def names(library: str) -> list[str]:
    """Read from the source: importing torch and all models only to list them would take seconds."""
    _, folder, pattern = LIBRARIES[library]
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return []
    files = (Path(spec.origin).parents[1] / folder).glob("*.py")
    found = {name for file in files for name in re.findall(pattern, file.read_text(encoding="utf-8"))}
    return sorted(found.difference(WRAPPERS))
