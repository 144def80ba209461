"""launch/ffcv_wheel.sh says what is missing before it compiles anything. The build itself needs the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def refusal(**environment):
    done = subprocess.run(
        [shutil.which("bash") or "bash", ROOT / "launch/ffcv_wheel.sh"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def test_a_python_that_is_too_old():
    assert refusal(DISTCLS_PYTHON="/bin/false") == (
        "ffcv wheel: /bin/false is not Python 3.11, 3.12 or 3.13, which distcls needs: name one with "
        "DISTCLS_PYTHON=/path/to/python3.12\n"
    )


def test_no_compiler(tmp_path):
    for tool in ("dirname", "realpath", "sed", "xargs", "echo"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    message = refusal(DISTCLS_PYTHON=sys.executable, PATH=str(tmp_path))
    assert message.startswith("ffcv wheel: a C++ compiler, pkg-config, or the headers of OpenCV 4 and libjpeg-turbo")
    assert message.endswith(
        "    sudo apt-get install --no-install-recommends g++ pkg-config libopencv-dev libturbojpeg0-dev libjpeg-dev\n"
    )
