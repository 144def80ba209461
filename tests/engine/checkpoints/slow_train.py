"""launch/train.py on a disk of its own kind: `slow_train.py SECONDS HARM RECIPE ...`.

Each file of a checkpoint takes SECONDS longer, and HARM is what happens to the writes of one step: `full@8` (the disk is
full), `die@8` (rank 1 is killed), `busy@8` (they begin when the training waits for a save), or `none`.
"""

import errno
import os
import re
import signal
import sys
import threading
import time

from distcls.engine.run import leave, main

SECONDS, (HARM, _, STEP) = float(sys.argv[1]), sys.argv[2].partition("@")


def install() -> None:
    from distcls.engine.checkpoints import store
    from distcls.engine.checkpoints.background import Background

    write_tensors, collect, waiting = store.write_tensors, Background.collect, threading.Event()

    def waited_for(self, seconds=None):
        waiting.set()
        return collect(self, seconds)

    def slow(path, tensors, *rest):
        harm = HARM if HARM != "none" and re.search(rf"step_0*{STEP}\.", str(path)) else "none"
        if harm == "busy":
            waiting.wait(300)
        time.sleep(SECONDS)
        if harm == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if harm == "die" and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return write_tensors(path, tensors, *rest)

    store.write_tensors = slow
    Background.collect = waited_for


if __name__ == "__main__":
    install()
    leave(main(sys.argv[3:]))
