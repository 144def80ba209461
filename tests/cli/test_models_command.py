"""`distcls models`: the names are those that the libraries themselves know, and nothing slow is imported."""

import subprocess
import sys

import pytest
import timm
import torchvision
from typer.testing import CliRunner

from distcls.cli.main import app
from distcls.cli.models import names
from distcls.errors import UserError
from distcls.registry import BACKBONES


def listed(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    if result.exception:
        raise result.exception
    return result.output.splitlines()


def test_names_are_the_libraries_own() -> None:
    import distcls.models  # noqa: F401  (registers them)

    assert names("timm") == sorted(timm.list_models())
    assert names("torchvision") == sorted(torchvision.models.list_models(module=torchvision.models))
    own = {name for name in BACKBONES.names() if BACKBONES[name].__module__.startswith("distcls.")}
    assert set(names("distcls")) == own - {"TimmBackbone", "TorchvisionBackbone"}


def test_search() -> None:
    assert listed("convnext_tiny") == [
        "timm         {type: TimmBackbone, model_name: convnext_tiny}",
        "timm         {type: TimmBackbone, model_name: convnext_tiny_hnf}",
        "torchvision  {type: TorchvisionBackbone, model_name: convnext_tiny}",
    ]
    assert listed("ResNet*", "--library", "distcls")[0] == "distcls      {type: ResNet}"
    assert listed("resnet50")[0] == "distcls      {type: ResNet}"
    assert len(listed()) > 1200


def test_nothing_found() -> None:
    with pytest.raises(UserError) as caught:
        listed("resnest51")
    assert str(caught.value) == "no backbone's name matches 'resnest51'. Did you mean 'resnet51q'?"
    with pytest.raises(UserError) as caught:
        listed("--library", "tim")
    assert str(caught.value) == "--library: got 'tim', expected distcls, timm, torchvision"


def test_without_torch() -> None:
    code = "import sys, distcls.cli.models as m; m.names('timm'); sys.exit(', '.join({'torch', 'timm'} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
