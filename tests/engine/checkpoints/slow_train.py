"""launch/train.py on a disk of its own kind: `slow_train.py SECONDS HARM RECIPE ...`.

Each file of a checkpoint takes SECONDS longer, and HARM is what happens to the writes of one step: `full@8` (the disk is
full), `die@8` (rank 1 is killed), or `none`.
"""

import errno
import os
import re
import signal
import sys
import time

from distcls.engine.run import main

SECONDS, (HARM, _, STEP) = float(sys.argv[1]), sys.argv[2].partition("@")


def install() -> None:
    from distcls.engine.checkpoints import store

    write_tensors = store.write_tensors

    def slow(path, tensors, *rest):
        time.sleep(SECONDS)
        if HARM != "none" and re.search(rf"step_0*{STEP}\.", str(path)):
            if HARM == "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            if os.environ.get("RANK") == "1":
                os.kill(os.getpid(), signal.SIGKILL)
        return write_tensors(path, tensors, *rest)

    store.write_tensors = slow


if __name__ == "__main__":
    install()
    sys.exit(main(sys.argv[3:]))
