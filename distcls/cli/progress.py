"""Progress display of long commands."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, otherwise a line for every 10%, both on stderr.

    Args:
        total: number of items.
        title: shown in front.

    Yields:
        A function to call with the number of items done.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    printed = 0

    def line(done: int) -> None:
        nonlocal printed
        tenth = 10 * done // total
        if tenth > printed:
            printed = tenth
            print(f"{title}: {done} of {total}", file=sys.stderr, flush=True)

    yield line
