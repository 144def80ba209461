"""launch/train.py that waits at a step for whoever means to stop or to kill it: `held_train.py STEP RECIPE ...`.

A tiny run takes milliseconds a step, and the test beside it may not get a core for seconds: without this it would come
too late, now and then. Of several ranks the last one waits; the others come one step further at most.
"""

import os
import sys
import time

from distcls.engine.run import leave, train
from distcls.engine.stopping.preemption import StopRequest

STOP = StopRequest()


def hold_at(held_step: int) -> None:
    from distcls.engine.stopping.agreement import Agreement

    post = Agreement.post

    def waiting_post(self, step, **flags):
        while step == held_step and STOP.requested is None:
            time.sleep(0.01)
        post(self, step, **flags)

    if int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        Agreement.post = waiting_post


if __name__ == "__main__":
    hold_at(int(sys.argv[1]))
    leave(train(sys.argv[2], sys.argv[3:], stop=STOP).exit_code)
