"""Imports the classes that a recipe may name: the parts of this package, and the recipe's plug-ins."""

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distcls.errors import UserError
from distcls.recipe.schema import Recipe, check
from distcls.recipe.source import Source, read


@dataclass(frozen=True)
class Plugin:
    """One imported plug-in: what the recipe wrote, the file it came from, and that file's sha256."""

    name: str
    file: Path
    sha256: str


def checked_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, Source, list[Plugin]]:
    """Read a recipe, register the classes that it can name, and check it against them.

    A file that cannot be read is reported before the parts, and with them torch, are imported.

    Raises:
        RecipeError: with all mistakes of the recipe.
    """
    source = read(path, overrides)
    plugins = import_parts(source)
    return check(source), source, plugins


def import_parts(source: Source | None = None) -> list[Plugin]:
    """Register every part of this package, then those of the recipe's plug-ins.

    Plug-ins are files (``.../my_backbone.py``) or modules (``my_lab.heads``) whose decorators register classes. A
    plug-in that is missing or fails to import is added to `source.problems`.
    """
    for layer in ("models", "data", "optim"):
        importlib.import_module(f"distcls.{layer}")
    plugins: list[Plugin] = []
    if source is None:
        return plugins
    for index, name in enumerate(source.plugins):
        try:
            plugins.append(import_plugin(name))
        except UserError as error:
            source.problems.append(source.problem(("plugins", index), str(error)))
    return plugins


def import_plugin(name: str) -> Plugin:
    """Import one plug-in: a path that ends in .py, or a module's name.

    Raises:
        UserError: it does not exist, or fails to import.
    """
    return _import_file(Path(name)) if name.endswith(".py") else _import_module(name)


def _import_file(file: Path) -> Plugin:
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    source = file.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    # The name is unique to the path: two files named heads.py are two modules; one imported twice is the same module.
    name = f"distcls_plugin_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            place = _place(error, name, str(file))
            raise UserError(f"{place}: {type(error).__name__}: {error}{_advice(error)}") from error
    return Plugin(str(file), file, digest)


def _import_module(name: str) -> Plugin:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            advice = "install it, put its folder into PYTHONPATH, or give the path of a .py file"
            raise UserError(f"no module named {error.name!r}: {advice}") from error
        raise UserError(f"{_place(error, name, name)}: {type(error).__name__}: {error}{_advice(error)}") from error
    file = Path(module.__file__ or name)
    return Plugin(name, file, hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "")


def _advice(error: Exception) -> str:
    """Advice for modules written for OpenMMLab, which registers all roles in one registry; else empty."""
    if not re.search(
        r"'(mmpretrain|mmcls|mmcv|mmengine)\b|register_module|'MODELS'|Registry\.register\(\) missing", str(error)
    ):
        return ""
    return (
        "; a class is registered by its role: from distcls.registry import BACKBONES, then @BACKBONES.register above it"
    )


def _place(error: Exception, module: str, unknown: str) -> str:
    """``file:line`` of the innermost frame in the top-level package of the plug-in `module`; else `unknown`."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    place, trace = unknown, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == module.partition(".")[0]:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
