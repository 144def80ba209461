"""Decoding only the needed window of a JPEG: a small C function over libjpeg-turbo, compiled on the machine.

    python -m distcls.data.decoding.jpeg_window            compiles it; launch/setup.sh does this

It is optional: without it FFCV decodes whole images. The pixels are the same (tested); a run still records which
decoder it uses, because versions of libjpeg-turbo may differ.
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
    """The decoder in use.

    Attributes:
        address: of the C function; 0 if there is none.
        name: shown to users and compared between ranks.
    """

    address: int
    name: str


WHOLE = WindowDecoder(0, "whole images, FFCV")


def library_path(folder: Path = SOURCE.parent) -> Path:
    """The file name contains a hash of the source and the architecture, so that a stale library is never loaded."""
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]
    return folder / f"_jpeg_window-{version}-{platform.machine()}.so"


def build(path: Path) -> str | None:
    """Compile to `path`. Returns the reason if that failed, else None."""
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
    """Open a compiled library; WHOLE if it, or libjpeg on this machine, is missing."""
    try:
        # Deep binding, because torchvision, OpenCV and Pillow load their own libjpeg into the process.
        library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW | os.RTLD_DEEPBIND)
    except OSError:
        return WHOLE
    library.library_version.restype = ctypes.c_char_p
    address = ctypes.cast(library.decode_window, ctypes.c_void_p).value
    assert address is not None
    return WindowDecoder(address, f"windows, {library.library_version().decode()}")


@functools.cache
def window_decoder() -> WindowDecoder:
    """The decoder of this installation, looked up once per process."""
    return load(library_path())


if __name__ == "__main__":
    if reason := build(library_path()):
        raise SystemExit(f"JPEGs will be decoded whole, not only their windows: {reason}")
