"""Ends a rank that waits too long for one that is gone or hangs, with an error that names that rank."""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch

from distcls.engine.ranks.heartbeat import Heartbeat
from distcls.engine.ranks.roll_call import RollCall, call_roll
from distcls.errors import UserError
from distcls.tracking.bounded import Overdue, within

TICK_S = 1.0
DISK_S = 30.0  # a shared folder that does not answer within this time counts as cut off as well
REMEDY = "See what that rank printed and the log of its host; the same command goes on from the last checkpoint"


class RankLost(UserError):
    """Another rank is lost, or no rank makes progress.

    Attributes:
        speaker: whether this rank reports for all, as the lowest one alive.
    """

    def __init__(self, text: str, *, speaker: bool, on_one_rank: bool) -> None:
        super().__init__(text)
        self.speaker, self.on_one_rank = speaker, on_one_rank


class Watchdog:
    """Measures how long this rank has made no progress; warns first, and ends the process after the timeout.

    It runs in a thread, because calls of gloo and NCCL cannot be interrupted, and because NCCL's own watchdog aborts
    the process without saying which rank it waited for.

    Args:
        heart: the heartbeat of this rank.
        timeout_s: seconds without a beat after which the run ends, if it has more than one rank.
        warn_after_s: seconds without a beat after which a line on stderr says which rank is behind; repeated whenever
            that time has doubled.
        record: called with the error before the process ends.
    """

    def __init__(
        self, heart: Heartbeat, *, timeout_s: float, warn_after_s: float, record: Callable[[RankLost], None]
    ) -> None:
        self._heart = heart
        self._timeout_s = timeout_s
        self._warn_at_s = self._warn_after_s = warn_after_s
        self._record = record
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def explain(self, error: BaseException) -> RankLost:
        """The RankLost behind a collective's error; takes some seconds to be certain that a rank is gone."""
        return self._lost(lambda roll: f"a connection broke ({reason(error)}), but {roll.sentence()}")

    def _watch(self) -> None:
        beats, before = self._heart.beats, time.monotonic()
        while not self._stopped.wait(TICK_S):
            # Time in which the whole process was stopped (`scontrol suspend` stops all ranks) is not a hang.
            passed = min(time.monotonic() - before, 2 * TICK_S)
            before = time.monotonic()
            if self._heart.beats != beats:
                beats, self._heart.still_s, self._warn_at_s = self._heart.beats, 0.0, self._warn_after_s
                continue
            self._heart.still_s += passed
            if self._heart.still_s >= self._timeout_s and self._heart.world_size > 1:
                self._give_up()
            elif self._heart.still_s >= self._warn_at_s:
                self._warn_at_s *= 2
                self._warn()

    def _give_up(self) -> None:
        error = self._lost(lambda roll: f"no rank has gone on for {self._timeout_s:g} s: {roll.sentence()}")
        if self._stopped.is_set():  # meanwhile the main thread's collective has failed by itself
            return
        if error.on_one_rank:
            rank = f"rank {self._heart.rank} on {socket.gethostname()}"
            print(f"error: {rank}: {error}", file=sys.stderr, flush=True)
        self._heart.close(str(error), bereft=True)
        self._record(error)
        os._exit(1)  # the main thread is blocked in a call that does not return

    def _warn(self) -> None:
        beats, roll = self._heart.beats, self._roll()
        if roll is not None and roll.speaker == self._heart.rank and beats == self._heart.beats:
            text = f"warning: no step for {self._heart.still_s:.0f} s: {roll.sentence()}"
            if self._heart.world_size > 1:
                text += f"; the run ends after {self._timeout_s:g} s (distributed.timeout_s)"
            print(text, file=sys.stderr, flush=True)

    def _lost(self, nobody_is_missing: Callable[[RollCall], str]) -> RankLost:
        roll = self._roll()
        if roll is None:
            text = f"lost the other ranks, and the run folder does not answer either ({self._heart.folder}): "
            text += f"{socket.gethostname()} itself seems to be cut off"
            return RankLost(text, speaker=False, on_one_rank=True)
        text = nobody_is_missing(roll) if roll.complete else roll.sentence()
        rank = self._heart.rank
        return RankLost(f"{text}. {REMEDY}", speaker=roll.speaker == rank, on_one_rank=roll.speaks_for_host(rank))

    def _roll(self) -> RollCall | None:
        """The roll call, or None if the run folder does not answer."""
        answers: list[RollCall] = []
        try:
            within(DISK_S + 3 * self._heart.interval_s, lambda: answers.append(call_roll(self._heart)))
        except Overdue:
            return None
        return answers[0]


def lost_unwatched(error: BaseException) -> RankLost:
    """The error for a rank lost before the first heartbeat or after the last, when its number cannot be known."""
    return RankLost(f"lost another rank ({reason(error)}). {REMEDY}", speaker=False, on_one_rank=True)


def collective_timeout(timeout_s: float) -> timedelta:
    """The timeout for gloo and NCCL: longer than the watchdog's, which can say which rank is missing."""
    return timedelta(seconds=1.1 * timeout_s + 10)


def reason(error: BaseException) -> str:
    """The informative part of a collective's error, without the source location before it and the advice after it."""
    first_line = (str(error).splitlines() or [""])[0]
    return re.sub(r"^\[[^]]*third_party[^]]*\] ", "", first_line).partition(". This is typically")[0]


def is_collective_error(error: BaseException) -> bool:
    """Whether gloo, NCCL or the store raised `error`, which means a lost rank. Gloo raises a plain RuntimeError."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL", "c10d"))
