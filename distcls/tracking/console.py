"""Shows the run on the terminal: a progress bar and one line per epoch; in a log file plain lines to grep."""

import atexit
import math
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from distcls.tracking.tracker import Row

# Title and width of the columns of the epoch table.
TABLE = (
    ("epoch", 9),
    ("step", 9),
    ("train loss", 11),
    ("train top-1", 12),
    ("val loss", 9),
    ("val top-1", 10),
    ("val top-5", 10),
    ("lr", 10),
    ("img/s", 7),
    ("time", 9),
)
NARROW = 100  # characters; narrower terminals omit the less important columns
MINOR = ("step", "train top-1", "val top-5", "lr")


class Console:
    """The terminal output of a run. Silent on all ranks but 0, and from the moment that its terminal is closed.

    Args:
        rank: of this process.
        file: where to write; standard output if None.
        terminal: a rich console to draw on, for tests; made for `file` if None.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        rank: int = 0,
        file: IO[str] | None = None,
        terminal: Terminal | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._silent = rank != 0
        # Without markup, so that a path like [/scratch] in a message is plain text.
        self._terminal = terminal or Terminal(file=file, markup=False, highlight=False, soft_wrap=True)
        self._live = self._terminal.is_terminal and not self._terminal.is_dumb_terminal and not self._silent
        self._progress: Progress | None = None
        self._train: Row = {}
        self._total_steps = self._steps_per_epoch = 1
        self._started = (0.0, 0)
        atexit.register(self._stop)  # restore the cursor if the run ends in an exception

    def start(self, total_steps: int, steps_per_epoch: int, first_step: int = 0) -> None:
        """Training begins; `first_step` of `total_steps` are already done."""
        self._total_steps, self._steps_per_epoch = total_steps, steps_per_epoch
        self._started = (self.clock(), first_step)
        if self._live:
            columns = [title for title, _ in self._columns()]
            self._print(Text(self._cells(dict(zip(columns, columns, strict=True))), style="bold"))
            self._progress = Progress(
                *self._bar_columns(), console=self._terminal, refresh_per_second=4, expand=True, transient=True
            )
            self._progress.add_task("train", total=total_steps, completed=first_step)
            self._progress.start()

    def advance(self, step: int) -> None:
        """Move the bar to `step`; cheap enough for every step (about 20 us on a terminal, nothing elsewhere)."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step)

    def train_row(self, row: Row) -> None:
        """A row of training metrics: a line in a log file, the figures beside the bar on a terminal."""
        self._train = row
        if not self._live:
            self._line(row, "train", ("loss", "top1"), eta=True)
        self.advance(row["step"])

    def val_row(self, row: Row) -> None:
        """A row of evaluation metrics: one line of the epoch table."""
        if not self._live:
            topk = [name.removeprefix("val/") for name in row if name.startswith("val/top")]
            self._line(row, "val", ("loss", *topk, "map", "n"))
            return
        train = self._train
        best = row.get("best/val_top1")
        is_best = best is not None and row.get("val_ema/top1", row.get("val/top1")) == best
        cells = {
            "epoch": f"{self._epoch(row)}/{self._epochs}",
            "step": str(row["step"]),
            "train loss": number(train.get("train/loss")),
            "train top-1": number(train.get("train/top1")),
            "val loss": number(row.get("val/loss")),
            "val top-1": number(row.get("val/top1")) + ("*" if is_best else " "),
            "val top-5": number(row.get("val/top5")),
            "lr": number(train.get("optim/lr"), "g"),
            "img/s": number(train.get("perf/img_per_s"), "d"),
            "time": duration(self.clock() - self._started[0]),
        }
        self._print(Text(self._cells(cells), style="green" if is_best else ""))

    def note(self, text: str) -> None:
        """Print a line of information."""
        self._print(Text(text, style="dim" if self._live else ""))

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._print(Text(f"warning: {text}", style="yellow"))

    def finish(self, lines: Sequence[str] = ()) -> None:
        """Remove the bar and print the last lines."""
        self._stop()
        for line in lines:
            self._print(Text(line))

    @property
    def _epochs(self) -> int:
        return math.ceil(self._total_steps / self._steps_per_epoch)

    def _epoch(self, row: Row) -> int:
        """The epoch of a row's step, counted from 1."""
        return max(1, math.ceil(row["step"] / self._steps_per_epoch))

    def _eta(self, step: float) -> str:
        """Time until the last step at the mean speed since the start, including evaluations and checkpoints."""
        seconds, done = self.clock() - self._started[0], step - self._started[1]
        return duration(seconds / done * (self._total_steps - step)) if done > 0 else "?"

    def _line(self, row: Row, group: str, names: Sequence[str], eta: bool = False) -> None:
        """A line of words and values: ``epoch 1/3 step 9/702 loss 0.5120 top1 0.8120 lr 0.05 img/s 5213``."""
        words = [f"epoch {self._epoch(row)}/{self._epochs} step {row['step']}/{self._total_steps}"]
        if group != "train":
            words.append(group)
        for name in names:
            if (value := row.get(f"{group}/{name}")) is not None:
                words.append(f"{name} {number(value, 'd' if name == 'n' else 'f')}")
        for word, key, form in (
            ("ema_top1", "val_ema/top1", "f"),
            ("ema_map", "val_ema/map", "f"),
            ("lr", "optim/lr", "g"),
            ("img/s", "perf/img_per_s", "d"),
            ("best", "best/val_top1", "f"),
            ("best", "best/val_map", "f"),
        ):
            if key in row:
                words.append(f"{word} {number(row[key], form)}")
        if eta:
            words.append(f"eta {self._eta(row['step'])}")
        self._print(Text(" ".join(words)))

    def _columns(self) -> list[tuple[str, int]]:
        return [column for column in TABLE if self._terminal.width >= NARROW or column[0] not in MINOR]

    def _cells(self, cells: dict[str, str]) -> str:
        return " ".join(cells[title].rjust(width) for title, width in self._columns())

    def _bar_columns(self) -> list[ProgressColumn]:
        figures = [
            _Figure(
                lambda step: f"epoch {min(self._epochs, int(step // self._steps_per_epoch) + 1)}/{self._epochs}", "bold"
            ),
            BarColumn(bar_width=None),
            _Figure(lambda step: f"{int(step)}/{self._total_steps}"),
            _Figure(lambda step: f"{number(self._train.get('perf/img_per_s'), 'd')} img/s", "cyan"),
            _Figure(lambda step: f"eta {self._eta(step)}", "cyan"),
            _Figure(lambda step: f"loss {number(self._train.get('train/loss'))}"),
            _Figure(lambda step: f"top-1 {number(self._train.get('train/top1'))}"),
        ]
        if self._terminal.width >= NARROW:
            figures.append(_Figure(lambda step: f"lr {number(self._train.get('optim/lr'), 'g')}"))
        return figures

    def _print(self, text: Text) -> None:
        if self._silent:
            return
        try:
            self._terminal.print(text, soft_wrap=True)
        except (OSError, SystemExit):  # terminal or reader of the pipe is gone; rich would exit
            self._silent = True

    def _stop(self) -> None:
        if self._progress is not None:
            progress, self._progress = self._progress, None
            try:
                progress.stop()
            except (OSError, SystemExit):
                self._silent = True


class _Figure(ProgressColumn):
    """A text beside the bar, made from the current step."""

    def __init__(self, text: Callable[[float], str], style: str = "") -> None:
        super().__init__()
        self._text, self._style = text, style

    def render(self, task: Task) -> Text:
        return Text(self._text(task.completed), style=self._style, no_wrap=True)


def number(value: Any, form: str = "f") -> str:
    """`value` as text: ``f`` four decimals (losses, fractions), ``g`` four digits (lr), ``d`` whole; ``-`` if None."""
    if value is None:
        return "-"
    return {"f": f"{value:.4f}", "g": f"{value:.4g}", "d": f"{value:.0f}"}[form]


def duration(seconds: float) -> str:
    """``45s``, ``3m05s``, ``2h07m``, ``1d03h``."""
    whole = round(seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{below}"
    return f"{whole}s"
