import io
import sys

from distcls.cli.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch, stderr, total, steps):
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bar(total, "train.beton") as progress:
        for done in steps:
            progress(done)
    return stderr.getvalue()


def test_a_log_has_a_line_for_every_tenth(monkeypatch):
    lines = shown(monkeypatch, io.StringIO(), 200, range(1, 201)).splitlines()
    assert lines == [f"train.beton: {done} of 200" for done in range(20, 201, 20)]


def test_of_few_large_steps_each_is_a_line(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), 3, [1, 1, 3]) == "train.beton: 1 of 3\ntrain.beton: 3 of 3\n"


def test_a_terminal_has_a_bar(monkeypatch):
    text = shown(monkeypatch, Terminal(), 200, [100, 200])
    assert "train.beton" in text
    assert "200/200" in text
