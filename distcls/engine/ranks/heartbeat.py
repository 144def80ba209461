"""Heartbeats: each rank keeps a small file in the run folder that tells the other ranks where it is.

RUN/heartbeat/rank_00003: {"rank": 3, "host": "gpu07", "pid": 4242, "step": 1200, "phase": "training", ...}

The training loop only assigns three attributes; a background thread writes them every few seconds, so that a slow disk
never delays a step. A process that is stopped or dead stops writing; one that hangs keeps writing the same `beats`.
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

STALLED_S = 5.0  # without progress for this long, the file also gives the place in the code
REDUCTION = str(Path(__file__).with_name("reduction.py"))
PACKAGE = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Beat:
    """The content of a rank's file.

    Attributes:
        step: the current step; the last completed one while `phase` is evaluating or saving.
        beats: number of progress marks. All ranks pass the same marks in the same order, so the rank with the fewest
            is behind.
        still_s: seconds since the last mark, not counting time in which the whole process was stopped.
        place: where in the code the rank is, given after `STALLED_S` without progress.
        waits: whether the rank appears to be waiting for other ranks.
        time: when the file was written, by the rank's own clock.
        ended: why the rank left, if it could say so.
        bereft: whether it left because other ranks were lost.
        age_s: seconds by which this file is older than the reader's own, by modification time. For messages only, not
            for telling which ranks are alive: a file system may date a file by the clock of the host that writes it.
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
    """Seconds between two writes of a rank; 1,000 ranks make 200 small writes per second on the file system."""
    return min(5.0, max(1.0, world_size / 20))


def clear(folder: Path) -> None:
    """Remove the files of previous attempts, which may have had more ranks. By rank 0, before any rank writes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def read_all(folder: Path, rank: int) -> dict[int, Beat]:
    """The last heartbeat of each rank; `rank` is the reader's own, from whose file ages are measured."""
    found: dict[int, tuple[float, Beat]] = {}
    for path in sorted(folder.glob("rank_*")):
        # Opening a file makes an NFS client revalidate its cache. A file that is being written may be torn.
        with contextlib.suppress(OSError, ValueError, TypeError), path.open() as file:
            beat = Beat(**json.loads(file.readline()))
            found[beat.rank] = (os.fstat(file.fileno()).st_mtime, beat)
    now = found[rank][0] if rank in found else time.time()
    return {one: replace(beat, age_s=max(0.0, now - written)) for one, (written, beat) in found.items()}


class Heartbeat:
    """The heartbeat of this rank.

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
        """Write the first heartbeat, and start the thread that writes the following ones."""
        self.write()
        threading.Thread(target=self._write_on, name="heartbeat", daemon=True).start()

    def beat(self, step: int, phase: str) -> None:
        """Mark that this rank has entered `phase` of `step`; costs three assignments."""
        self._step, self._phase = step, phase
        self.beats += 1

    def again(self) -> None:
        """Mark progress within the current phase."""
        self.beats += 1

    def close(self, ended: str, *, bereft: bool = False) -> None:
        """Write the final heartbeat, which nothing overwrites; further calls have no effect."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._ended, self._bereft = ended, bereft
        self.write()

    def write(self) -> None:
        """Write the file now. Disk errors are ignored: a heartbeat must not end a run."""
        # The content is read under the lock, so that no older one replaces the final heartbeat.
        with self._writing, contextlib.suppress(OSError):
            line = json.dumps(asdict(self.sign())).encode() + b"\n"
            # In place, not by renaming: NFS clients revalidate folders less often than files.
            fd = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(fd, line, 0)
                os.ftruncate(fd, len(line))
            finally:
                os.close(fd)

    def sign(self) -> Beat:
        """The current content of the file."""
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
    """``my_backbone.py:42 forward``: the innermost frame of a thread in this package or in the user's code."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    innermost = frame
    while frame is not None and not _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    frame = frame or innermost
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"


def waits(thread: int | None) -> bool:
    """Whether a thread is in a Python function of torch, such as a collective, or in reduction.py, waiting for one."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    return frame is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == REDUCTION)


def _is_ours(file: str) -> bool:
    libraries = ("site-packages", "dist-packages", f"{sys.base_prefix}/lib", "<frozen")
    return file.startswith(PACKAGE) or not any(library in file for library in libraries)
