"""Imports go down only: launch, cli -> engine -> models | data | optim | tracking | recipe -> registry, errors."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEIGHT = {
    "__main__": 5,  # `python -m distcls`, which is the command
    "launch": 4,
    "cli": 4,
    "engine": 3,
    "models": 2,
    "data": 2,
    "optim": 2,
    "tracking": 2,
    "recipe": 2,
    "registry": 1,
    "errors": 0,
    "version": 0,
}


def imported_modules(source: str, module: str) -> Iterator[str]:
    """Names of the distcls modules that `source`, the text of `module`, imports anywhere: also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) + "." if node.level else ""
            # `from distcls import data` names a layer only together with what is imported.
            names = [f"{base}{node.module or ''}".rstrip(".") + f".{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "distcls")


def breach(importer: str, imported: str) -> str | None:
    """What is wrong with `importer`, a module's full name, importing `imported`; None if nothing is."""
    below = imported.split(".")[1]
    if importer == "distcls":  # the library's front door
        return None
    if below not in HEIGHT:
        return f"{importer} imports {imported}: the front door is for users"
    layer = "launch" if importer.startswith("launch.") else importer.split(".")[1]
    if layer == below or HEIGHT[layer] > HEIGHT[below]:
        return None
    return f"{importer} imports {imported}: {layer} may not know {below}"


def modules() -> Iterator[tuple[str, Path]]:
    for file in [*sorted(ROOT.glob("distcls/**/*.py")), *sorted(ROOT.glob("launch/**/*.py"))]:
        yield ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), file


def test_every_import_goes_down() -> None:
    breaches = [
        found
        for module, file in modules()
        for imported in imported_modules(
            file.read_text(), module if file.name != "__init__.py" else f"{module}.__init__"
        )
        if (found := breach(module, imported))
    ]
    assert not breaches, "\n".join(breaches)


def test_every_part_of_the_package_has_a_place() -> None:
    parts = {path.stem for path in (ROOT / "distcls").iterdir() if path.stem not in ("__init__", "__pycache__", "py")}
    assert parts <= set(HEIGHT), f"no layer is set for: {parts - set(HEIGHT)}"


@pytest.mark.parametrize(
    ("importer", "source", "allowed"),
    [
        ("distcls.engine.trainer", "from distcls.data.loader import TrainLoader", True),
        ("distcls.data.loader", "import distcls.registry", True),
        ("distcls.data.loader", "from distcls.version import __version__", True),
        ("distcls.data.loader", "from distcls import __version__", False),
        ("distcls.data.loader", "from distcls.models.classifier import ImageClassifier", False),
        ("distcls.data.loader", "from distcls import models", False),
        ("distcls.data.loader", "from ..models import classifier", False),
        ("distcls.models.heads.head", "def late():\n    import distcls.engine.trainer", False),
        ("distcls.registry", "from distcls.recipe.source import read", False),
        ("distcls.engine.run", "from distcls.cli import main", False),
        ("launch.train", "from distcls.engine.run import main", True),
    ],
)
def test_a_breach_is_seen(importer: str, source: str, allowed: bool) -> None:
    found = [breach(importer, name) for name in imported_modules(source, importer)]
    assert found
    assert (found == [None]) is allowed


@pytest.mark.parametrize(
    "module", ["recipe.source", "recipe.schema", "registry", "cli.main", "engine.stopping.preemption"]
)
def test_starts_without_torch(module: str) -> None:
    """Recipe mistakes and --help come at once, and stop requests are heard before torch's seconds of import."""
    if not (ROOT / "distcls" / f"{module.replace('.', '/')}.py").exists():
        pytest.fail(f"distcls.{module} is gone: say here what must start without torch now")
    code = f"import sys, distcls.{module}; sys.exit(', '.join({{'torch', 'numba', 'ffcv', 'wandb'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"distcls.{module} imports {done.stderr}"
