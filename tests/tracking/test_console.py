import io
import re
import subprocess
import sys

import pytest
from rich.console import Console as Terminal

from distcls.tracking.console import Console, duration


def train_row(step, **more):
    return {
        "step": step,
        "epoch": step / 234,
        "samples": step * 256,
        "train/loss": 0.51234,
        "train/top1": 0.8125,
        "optim/lr": 0.05,
        "perf/img_per_s": 5213.4,
        **more,
    }


def val_row(step, top1=0.85):
    val = {"val/loss": 0.4, "val/top1": top1, "val/top5": 0.99, "val/n": 10000, "best/val_top1": 0.85}
    return {"step": step, "epoch": step / 234, "samples": step * 256, **val}


def run(console):
    console.note("run folder [/scratch/runs]/fm")
    console.start(total_steps=702, steps_per_epoch=234, first_step=0)
    console.advance(1)
    console.train_row(train_row(200))
    console.train_row(train_row(234))
    console.val_row(val_row(234))
    console.warn("W&B is out of reach")
    console.train_row({"step": 250, "epoch": 1.07, "samples": 64000, "train/loss": float("nan")})
    console.finish(["val top-1 0.8500", "run folder: runs/fm"])


def test_plain_lines_word_by_word():
    file, now = io.StringIO(), iter([100.0, 110.0, 111.7, 112.5])
    run(Console(file=file, clock=lambda: next(now)))
    assert file.getvalue().splitlines() == [
        "run folder [/scratch/runs]/fm",
        "epoch 1/3 step 200/702 loss 0.5123 top1 0.8125 lr 0.05 img/s 5213 eta 25s",
        "epoch 1/3 step 234/702 loss 0.5123 top1 0.8125 lr 0.05 img/s 5213 eta 23s",
        "epoch 1/3 step 234/702 val loss 0.4000 top1 0.8500 top5 0.9900 n 10000 best 0.8500",
        "warning: W&B is out of reach",
        "epoch 2/3 step 250/702 loss nan eta 23s",
        "val top-1 0.8500",
        "run folder: runs/fm",
    ]


def test_the_average_s_accuracy_is_what_best_goes_by():
    row = val_row(234, top1=0.7) | {"val_ema/top1": 0.85}
    plain, shown = io.StringIO(), io.StringIO()
    Console(file=plain).val_row(row)
    assert plain.getvalue() == (
        "epoch 234/1 step 234/1 val loss 0.4000 top1 0.7000 top5 0.9900 n 10000 ema_top1 0.8500 best 0.8500\n"
    )
    Console(terminal=Terminal(file=shown, force_terminal=True, width=140)).val_row(row)
    assert "0.7000*" in shown.getvalue()


def test_a_resumed_run_paces_itself_by_its_own_steps():
    file, now = io.StringIO(), iter([0.0, 10.0])
    console = Console(file=file, clock=lambda: next(now))
    console.start(total_steps=702, steps_per_epoch=234, first_step=600)
    console.train_row(train_row(700))
    assert file.getvalue().endswith("eta 0s\n")


def test_other_ranks_are_silent():
    file = io.StringIO()
    run(Console(rank=1, file=file))
    assert file.getvalue() == ""


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_gets_a_bar_and_a_table(width):
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=True, width=width, height=40, record=True, markup=False)
    run(Console(terminal=terminal))
    shown = file.getvalue()
    assert "━" in shown
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") == 1  # the cursor comes back
    lines = [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))]
    assert all(len(line) <= width for line in lines)
    table = [line.split() for line in lines if re.match(r"(epoch +(step|train)|1/3 )", line)]
    if width == 140:
        assert " ".join(table[0]) == "epoch step train loss train top-1 val loss val top-1 val top-5 lr img/s time"
        assert table[1][:9] == ["1/3", "234", "0.5123", "0.8125", "0.4000", "0.8500*", "0.9900", "0.05", "5213"]
    else:
        assert " ".join(table[0]) == "epoch train loss val loss val top-1 img/s time"
        assert table[1][:5] == ["1/3", "0.5123", "0.4000", "0.8500*", "5213"]
    assert lines[-2] == "run folder: runs/fm"


def test_a_reader_that_goes_away_does_not_stop_the_run():
    """`train ... | head -1` trains to its end."""
    with subprocess.Popen(
        [sys.executable, "-c", "import tests.tracking.test_console as t; input(); t.run(t.Console()); t.ended()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        process.stdin.write(b"go\n")
        process.stdin.close()
        assert (process.stderr.read(), process.wait()) == (b"the end\n", 0)


def ended():
    print("the end", file=sys.stderr)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m"), (97200, "1d03h")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
