"""`accelerate launch launch/train.py RECIPE [KEY=VALUE ...]`; torchrun, srun python and plain python start it, too."""

import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed works too

from distcls.engine.run import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    gc.freeze()  # or Python looks for garbage among all that torch has made, for 0.4 s, only to end
    sys.exit(status)
