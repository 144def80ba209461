"""`accelerate launch launch/train.py RECIPE [KEY=VALUE ...]`; torchrun, srun python and plain python start it, too."""

import atexit
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed works too

from distcls.engine.run import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Everything is saved and closed. The interpreter is not taken down in order: gloo's threads, which may still run
    # then, abort the process (pytorch issue 190489), so that a run that is finished would count as failed.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
