"""`accelerate launch launch/train.py RECIPE [KEY=VALUE ...]`; torchrun, srun python and plain python start it, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed works too

from distcls.engine.run import leave, main

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
