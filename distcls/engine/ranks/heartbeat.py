"""Signs of life: each rank keeps a small file in the run folder that says where it is, for the others to read.

RUN/heartbeat/rank_00003: {"rank": 3, "host": "gpu07", "pid": 4242, "step": 1200, "phase": "training", ...}

The loop only sets two numbers; a thread of its own writes them down every few seconds, so that a slow disk never holds
up a step. A process that is stopped or dead writes no more; one that hangs goes on writing the same beats.
"""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

STALLED_S = 5.0  # after this long at one place the file says where in the code that is
REDUCTION = str(Path(__file__).with_name("reduction.py"))
PACKAGE = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Beat:
    """What a rank's file says.

    Attributes:
        step: under way, or done where `phase` is evaluating or saving.
        beats: how many times it went on from one thing to the next. Every rank does the same things in the same
            order, so the one with the fewest is behind.
        still_s: seconds since it last went on, not counting those in which the whole process was stopped.
        place: where in the code it is, once it has been there for some seconds. waits: that is where ranks wait for
            each other, as far as one can tell.
        time: when the file was written, by the rank's own clock.
        ended: why it left, if it could say so. bereft: because others had left.
        age_s: seconds between the writing of this file and of the reader's own, by their dates; for people, not to
            tell who lives: a file system may date a file by the clock of the host that writes it.
    """

    rank: int
    host: str
    pid: int
    step: int
    phase: str
    beats: int
    still_s: float
    place: str
    waits: bool
    time: str
    ended: str | None = None
    bereft: bool = False
    age_s: float = field(default=0.0, compare=False)


def interval_s(world_size: int) -> float:
    """Seconds between two writings: on 1,000 ranks 200 small writes a second reach the file system."""
    return min(5.0, max(1.0, world_size / 20))


def clear(folder: Path) -> None:
    """Rank 0, before any other rank writes: an attempt before this one may have had more ranks."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def read_all(folder: Path, rank: int) -> dict[int, Beat]:
    """Every rank's last sign of life; `rank` is the reader's own."""
    found: dict[int, tuple[float, Beat]] = {}
    for path in sorted(folder.glob("rank_*")):
        # Opening makes an NFS client ask its server. One that is being written just now may be torn.
        with contextlib.suppress(OSError, ValueError, TypeError), path.open() as file:
            beat = Beat(**json.loads(file.readline()))
            found[beat.rank] = (os.fstat(file.fileno()).st_mtime, beat)
    now = found[rank][0] if rank in found else time.time()
    return {one: replace(beat, age_s=max(0.0, now - written)) for one, (written, beat) in found.items()}


class Heartbeat:
    """This rank's sign of life.

    Args:
        folder: RUN/heartbeat, which rank 0 has cleared.
        rank: of this process.
        world_size: number of ranks.

    Attributes:
        still_s: seconds since the last `beat`; the watchdog counts them.
    """

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder, self.rank, self.world_size = folder, rank, world_size
        self.interval_s = interval_s(world_size)
        self.still_s = 0.0
        self.beats = 0
        self._step, self._phase = 0, "starting"
        self._ended: str | None = None
        self._bereft = False
        self._file = folder / f"rank_{rank:05d}"
        self._writing = threading.Lock()
        self._closed = threading.Event()

    def start(self) -> None:
        """The first sign, and a thread that gives the others."""
        self.write()
        threading.Thread(target=self._write_on, name="heartbeat", daemon=True).start()

    def beat(self, step: int, phase: str) -> None:
        """This rank goes on to `phase` of `step`; costs as much as three assignments."""
        self._step, self._phase = step, phase
        self.beats += 1

    def again(self) -> None:
        """This rank goes on within its phase."""
        self.beats += 1

    def close(self, ended: str, *, bereft: bool = False) -> None:
        """The last word; nothing is written after it."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._ended, self._bereft = ended, bereft
        self.write()

    def write(self) -> None:
        """Write the file now; an error of the disk is no reason to end a run."""
        with self._writing, contextlib.suppress(OSError):  # looked at in there: nothing older comes after the last word
            line = json.dumps(asdict(self.sign())).encode() + b"\n"
            # In place: a new name for each would change the folder, which NFS clients look at less often than at files.
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(fd, line, 0)
                os.ftruncate(fd, len(line))
            finally:
                os.close(fd)

    def sign(self) -> Beat:
        """What the file says next."""
        return Beat(
            rank=self.rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            step=self._step,
            phase=self._phase,
            beats=self.beats,
            still_s=round(self.still_s, 1),
            place=place_of(threading.main_thread().ident) if self.still_s >= STALLED_S else "",
            waits=waits(threading.main_thread().ident),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            ended=self._ended,
            bereft=self._bereft,
        )

    def _write_on(self) -> None:
        while not self._closed.wait(self.interval_s):
            self.write()


def place_of(thread: int | None) -> str:
    """``my_backbone.py:42 forward``: the innermost line of a thread that is in this package or in the user's code."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    innermost = frame
    while frame is not None and not _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    frame = frame or innermost
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


def waits(thread: int | None) -> bool:
    """Whether a thread is in a call of torch's, a collective for example, or in our wait for one."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    return frame is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == REDUCTION)


def _is_ours(file: str) -> bool:
    libraries = ("site-packages", "dist-packages", f"{sys.base_prefix}/lib", "<frozen")
    return file.startswith(PACKAGE) or not any(library in file for library in libraries)
