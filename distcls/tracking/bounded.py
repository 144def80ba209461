"""Bounds the time of calls that may hang."""

import math
import threading
from collections.abc import Callable
from typing import Any


class Overdue(TimeoutError):
    """A call took too long; it is left running in its thread."""


def within(seconds: float, call: Callable[[], Any]) -> None:
    """Run `call` for at most `seconds` in a daemon thread, which cannot keep the process alive.

    Raises:
        Overdue: it took longer; otherwise whatever `call` raised.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(None if seconds == math.inf else seconds)
    if thread.is_alive():
        raise Overdue(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]
