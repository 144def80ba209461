"""The report while a run goes on: drawn by the run itself, and by `distcls report --watch`."""

import re

from distcls.cli.report import report
from distcls.tracking.live_report import PAUSE, LiveReport
from tests.tracking.example_runs import make_run

VAL = {"step": 1, "epoch": 1.0, "samples": 8, "val/loss": 1.0}
RELOAD = re.compile(r'<meta http-equiv="refresh" content="(\d+)">')


def test_a_page_after_an_evaluation_but_not_after_each(tmp_path):
    run = make_run(tmp_path / "run", epochs=1, steps_per_epoch=50, attempts=((0, 50, "running"),))
    page, now = run / "report.html", [0.0]
    live = LiveReport(run, clock=lambda: now[0])
    live.log(VAL)
    assert not page.exists()  # a run of seconds is not slowed down
    now[0] = PAUSE
    live.log({"step": 1, "train/loss": 1.0})
    assert not page.exists()
    live.log(VAL)
    assert RELOAD.search(page.read_text())[1] == "60"
    page.unlink()
    now[0] = 1.5 * PAUSE
    live.log(VAL)
    assert not page.exists()
    assert [file.name for file in run.iterdir() if file.name.startswith(".")] == []


def test_watching_ends_with_the_run(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", epochs=1, steps_per_epoch=50, attempts=((0, 50, "running"),))
    drawn = []

    def sleep(seconds):
        drawn.append((seconds, RELOAD.search((run / "report.html").read_text())[1]))
        if len(drawn) == 2:
            (run / "run.json").write_text((run / "run.json").read_text().replace("running", "finished"))

    monkeypatch.setattr("time.sleep", sleep)
    report([run], watch=7)
    assert drawn == [(7, "7"), (7, "7")]
    assert RELOAD.search((run / "report.html").read_text()) is None
    assert capsys.readouterr().out == f"{run}/report.html\n"


def test_a_page_that_takes_long_is_drawn_less_often(tmp_path, monkeypatch):
    now, drawn = [0.0], []

    def draws(folders, file, reload_s):
        drawn.append(now[0])
        now[0] += 5.0

    monkeypatch.setattr("distcls.tracking.live_report.write_report", draws)
    live = LiveReport(tmp_path, clock=lambda: now[0])
    for _ in range(1000):
        now[0] += 1.0
        live.log(VAL)
    assert drawn == [60.0, 565.0]
