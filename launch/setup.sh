#!/usr/bin/env bash
# Makes .venv with distcls in it. quickstart.sh and test.sh call this; with nothing to do it returns at once.
#
#   bash launch/setup.sh [EXTRA]                          EXTRA: an extra of setup.cfg, e.g. test
#   DISTCLS_PYTHON=/path/to/python3.12 bash launch/setup.sh     uses that Python
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

extra=${1:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'set-up: %s\n' "$*"; }
stop() { printf 'set-up: %s\n' "$@" >&2; exit 1; }

# What .venv was made from. The folder is part of it: a virtual environment that was moved does not work.
stamp=.venv/set-up${extra:+-$extra}
fingerprint() { { cat setup.cfg pyproject.toml launch/constraints.txt launch/apt_test.txt distcls/data/decoding/jpeg_window.c; echo "$PWD" "${DISTCLS_PYTHON:-}"; } | sha256sum; }
# pip is not found when the system's Python has become another version under the virtual environment.
up_to_date() { [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]] && .venv/bin/python -c 'import pip' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${DISTCLS_PYTHON:+"$DISTCLS_PYTHON"} .venv/bin/python python3 python3.13 python3.12 python3.11; do
        # Run, not only looked up: pyenv has a shim for every version, also for those that are not active.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys._base_executable)'
            return
        fi
        [[ $candidate != "${DISTCLS_PYTHON:-}" ]] ||
            stop "DISTCLS_PYTHON=$DISTCLS_PYTHON is not Python 3.11, 3.12 or 3.13 but: $("$candidate" --version 2>&1 | head -1)"
    done
    stop "distcls needs Python 3.11, 3.12 or 3.13, and neither python3 ($(python3 --version 2>&1 || true)) nor python3.13 nor python3.12 nor python3.11 is one." \
        "Install one (Debian 12: apt-get install python3.11; Ubuntu 24.04: python3.12), or name one:" \
        "    DISTCLS_PYTHON=/path/to/python3.12 bash launch/setup.sh"
}

# The packages of launch/apt.txt, and what this Python needs beside them: venv and headers are packages of their own for Debian's Python.
needed_packages() {
    local python=$1 version
    can_compile || sed 's/#.*//' launch/apt.txt
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip' 2>/dev/null || echo "$version-venv"
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || echo "$version-dev"
}
missing_packages() {
    local package
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}
# Asked first, because on a cluster the libraries may come from modules or conda instead of packages.
can_compile() { command -v g++ >/dev/null && pkg-config --exists opencv4 libturbojpeg 2>/dev/null; }

install_packages() {
    local missing apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    # shellcheck disable=SC2046 # one word a package
    mapfile -t missing < <(missing_packages $(needed_packages "$1"))
    if ((${#missing[@]})); then
        command -v apt-get >/dev/null ||
            stop "FFCV cannot be compiled yet, and this system has no apt-get. Missing, by their Debian names: ${missing[*]}" \
                "It needs a C++ compiler, pkg-config, OpenCV 4 and libjpeg-turbo with their headers: pkg-config --exists opencv4 libturbojpeg"
        ((EUID == 0)) || sudo -n true 2>/dev/null ||
            stop "these system packages are missing, and installing them needs root. Run this, then start again:" \
                "    sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
        ((EUID == 0)) || apt=(sudo -n "${apt[@]}")
        say "installing system packages: ${missing[*]}"
        # The lock: a machine that has just been started may be updating itself. Old package lists may still do: go on without an update.
        "${apt[@]}" update || say "apt-get update failed; trying with the package lists that are here"
        "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
            stop "apt-get could not install: ${missing[*]} (its messages are above)"
    fi
    can_compile ||
        stop "the packages of launch/apt.txt are installed, but $(command -v pkg-config || echo "no pkg-config") does not find opencv4 and libturbojpeg." \
            "A pkg-config of conda looks in conda's folders only: conda deactivate, or set PKG_CONFIG_PATH."
}

# The programs of launch/apt_test.txt, which tests start. Without them these tests are skipped, and a user who is not root runs the rest.
install_test_packages() {
    local missing apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    # shellcheck disable=SC2046 # one word a package
    mapfile -t missing < <(missing_packages $(sed 's/#.*//' launch/apt_test.txt))
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || apt=(sudo -n "${apt[@]}")
    say "installing what tests start: ${missing[*]}"
    "${apt[@]}" update || true
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        say "not installed: ${missing[*]}. Tests that need them are skipped"
}

make_venv() {
    local python=$1 broken
    # Kept if it is of that version and was made here: pip's first line holds the folder, and pip says where it runs from.
    if [[ $(.venv/bin/python -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null) != "$("$python" -c 'import sys; print(*sys.version_info[:2])')" ||
        $(.venv/bin/pip --version 2>/dev/null) != *" $PWD/.venv/"* ]]; then
        say "making .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    # pip takes a package for installed that was cut off while its files were copied: it has no RECORD yet.
    for broken in .venv/lib/python3*/site-packages/*.dist-info; do
        [[ ! -d $broken || -f $broken/RECORD ]] || rm -r "$broken"
    done
}

install_distcls() {
    local pip=(.venv/bin/python -m pip install --use-pep517 --constraint launch/constraints.txt)
    [[ -t 1 ]] || pip+=(--quiet) # a progress bar on a terminal, a short log elsewhere
    # FFCV first: if it does not compile, one knows in ten seconds and not after 5 GB of torch. Not from pip's cache, where there may be
    # one built for another system's OpenCV; as-needed links 3 of OpenCV's 60 libraries, which is all it uses.
    if ! .venv/bin/python -c 'import ctypes, glob, sysconfig; ctypes.CDLL(glob.glob(sysconfig.get_path("platlib") + "/ffcv/_libffcv*")[0])' 2>/dev/null; then
        say "compiling FFCV"
        LDFLAGS="-Wl,--as-needed ${LDFLAGS:-}" "${pip[@]}" --no-cache-dir --no-deps --force-reinstall ffcv ||
            stop "FFCV did not compile; the compiler's messages are above"
    fi
    say "installing distcls${extra:+ with the $extra extra} and what it needs"
    [[ -n $(compgen -G '.venv/lib/python3*/site-packages/torch') ]] || say "torch with CUDA takes 5.5 GB and some minutes, once"
    "${pip[@]}" --editable ".${extra:+[$extra]}" || stop "pip could not install distcls; its messages are above. Start again to go on from here"
}

if ! up_to_date; then
    exec 9>.venv.lock
    flock --nonblock 9 || { say "another set-up runs in this folder; waiting for it"; flock 9; }
fi
if ! up_to_date; then
    SECONDS=0
    python=$(find_python)
    install_packages "$python"
    [[ $extra != test ]] || install_test_packages
    make_venv "$python"
    rm -f .venv/set-up*
    install_distcls
    # Optional: without it JPEGs are decoded whole. What is missing is said, and needs no stop.
    .venv/bin/python -m distcls.data.decoding.jpeg_window || true
    fingerprint | tee .venv/set-up >"$stamp"
    say "done in $SECONDS s: $(.venv/bin/python --version), .venv"
fi
