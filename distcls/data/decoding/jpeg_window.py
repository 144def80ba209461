"""Decoding of a JPEG's window alone: a small C function over libjpeg-turbo, where it has been compiled.

    python -m distcls.data.decoding.jpeg_window            compiles it; launch/setup.sh does

It is optional: without it whole images are decoded, by FFCV. The pixels are the same (tested); a run records which of
the two it uses all the same, because libjpeg-turbo's version may differ.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class WindowDecoder:
    """`address` of the C function, 0 where there is none; `name` for people and for the comparison of ranks."""

    address: int
    name: str


WHOLE = WindowDecoder(0, "whole images, FFCV")


def library_path(folder: Path = SOURCE.parent) -> Path:
    """Its name holds the source's hash and the machine's kind: a library of another version is never loaded."""
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]
    return folder / f"_jpeg_window-{version}-{platform.machine()}.so"


def build(path: Path) -> str | None:
    """Compile to `path`; why that failed, if it did."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "there is no C compiler"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-ljpeg", "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip() or f"{compiler} ended with status {done.returncode}"
        if (decoder := load(made)) is WHOLE:
            return "what was compiled cannot be loaded"
        made.replace(path)
    print(f"decoding of JPEG windows: {decoder.name}")
    return None


def load(path: Path) -> WindowDecoder:
    """Open a compiled library; WHOLE where it is missing, or libjpeg is on this machine."""
    try:
        # Deep binding: torchvision, OpenCV and Pillow bring libjpegs of their own into the process.
        library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW | os.RTLD_DEEPBIND)
    except OSError:
        return WHOLE
    library.library_version.restype = ctypes.c_char_p
    address = ctypes.cast(library.decode_window, ctypes.c_void_p).value
    assert address is not None
    return WindowDecoder(address, f"windows, {library.library_version().decode()}")


@functools.cache
def window_decoder() -> WindowDecoder:
    """This installation's, for the life of the process."""
    return load(library_path())


if __name__ == "__main__":
    if reason := build(library_path()):
        raise SystemExit(f"JPEGs will be decoded whole, not only their windows: {reason}")
