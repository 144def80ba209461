import pytest

from distcls.engine.run import main


@pytest.mark.parametrize("first", ["optimizer.lr=0.1", "--config-file"])
def test_the_recipe_comes_first(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([first, "r.yaml"]) == 1
    assert capsys.readouterr().err == (
        f"error: the recipe comes first, then KEY=VALUE: got '{first}', expected a YAML file\n"
    )


def test_help_is_given_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["r.yaml", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: accelerate launch launch/train.py RECIPE [KEY=VALUE ...]\n")
