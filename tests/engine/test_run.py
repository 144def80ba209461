"""What `launch/train.py` prints of an error, and on which rank."""

import errno
import signal

import pytest

from distcls.data.errors import DataError
from distcls.engine import run
from distcls.engine.attempt import session
from distcls.errors import UserError
from tests.engine.launching import PLAIN, launch


@pytest.mark.parametrize(
    ("error", "rank", "printed"),
    [
        (UserError("a mistake of all"), "0", True),
        (UserError("a mistake of all"), "1", False),
        (DataError("train.beton: sample 7: damaged"), "1", True),
    ],
)
def test_an_error_is_printed_where_it_happened_and_once_a_node(error, rank, printed, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(run, "train", fail)
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert run.main(["recipe.yaml"]) == 1
    said = capsys.readouterr().err
    assert (f"error: rank {rank} on " in said and str(error) in said) == printed
    assert bool(said) == printed


def test_an_error_that_is_not_a_files_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(run, "train", fail)
    with pytest.raises(ConnectionResetError):
        run.main(["recipe.yaml"])


@pytest.mark.parametrize("first", ["optimizer.lr=0.1", "--config-file"])
def test_the_recipe_comes_first(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([first, "r.yaml"]) == 1
    assert capsys.readouterr().err == (
        f"error: the recipe comes first, then KEY=VALUE: got '{first}', expected a YAML file\n"
    )


def test_help_is_given_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["r.yaml", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: accelerate launch launch/train.py RECIPE [KEY=VALUE ...]\n")


def test_after_a_run_in_somebodys_own_python_signals_do_what_they_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "run", lambda *_: signal.getsignal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert run.train("r.yaml") != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_fails_when_the_interpreter_is_taken_down_is_no_matter_for_a_run_that_is_finished(tmp_path, tiny_recipe):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import atexit, ctypes, pathlib\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)  # as a C++ object that is taken down\n"
        f"atexit.register(pathlib.Path({str(tmp_path / 'cleaned up')!r}).touch)\n"
    )
    status, output = launch(PLAIN, tiny_recipe, "train.epochs=1", f"plugins=[{plugin}]")
    assert status == 0, output
    assert "finished" in output
    assert (tmp_path / "cleaned up").exists()
