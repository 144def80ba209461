"""A mapped file whose bytes are gone: truncated in place by someone, or the disk does not deliver them.

The kernel answers a read of such a page with SIGBUS, which ends a process without a word. Here a handler puts a page of
zeros in the place of the one that is missing, and counts; whoever reads the file looks at the count before it uses what
it read. The handler is compiled, since one of Python's would run only after the read, which never returns.
"""

# numba's types inside compiled functions are not Python's.
# mypy: ignore-errors

import ctypes
import mmap
import os
import signal
import tempfile
import weakref
from pathlib import Path

import llvmlite.binding
import llvmlite.ir
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

_SYMBOL = "distcls_bus_error_state"
_MOST = 8192  # mapped files at once; what is beyond is not guarded
# The page size and the handler that was there before; then of each file its first address, its end and its lost pages.
_STATE = np.zeros(2 + 3 * _MOST, np.uint64)
_FILES = _STATE[2:].reshape(_MOST, 3)
_STATE[0] = mmap.PAGESIZE
llvmlite.binding.add_symbol(_SYMBOL, _STATE.ctypes.data)
_mmap = types.ExternalFunction(
    "mmap", types.intp(types.uint64, types.uint64, types.int32, types.int32, types.int32, types.int64)
)
_signal = types.ExternalFunction("signal", types.intp(types.int32, types.uint64))
_ZEROS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
_READ, _BUS = mmap.PROT_READ, int(signal.SIGBUS)


@intrinsic
def _state(typing_context):
    """_STATE by its name, so that the compiled handler can be kept on disk."""

    def generate(context, builder, signature, arguments):
        known = builder.module.globals.get(_SYMBOL)
        place = known or llvmlite.ir.GlobalVariable(builder.module, llvmlite.ir.IntType(64), _SYMBOL)
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return types.CPointer(types.uint64)(), generate


def _on_bus_error(number, info, context):
    """void (int, siginfo_t *, void *); si_addr is 16 bytes into siginfo_t."""
    state, address = _state(), info[2]
    for at in range(2, 2 + 3 * _MOST, 3):
        if state[at] <= address < state[at + 1]:
            state[at + 2] += np.uint64(1)
            page = address // state[0] * state[0]
            _mmap(page, state[0], np.int32(_READ), np.int32(_ZEROS), np.int32(-1), np.int64(0))
            return
    _signal(np.int32(_BUS), state[1])  # none of ours: the read is tried again, and meets the handler from before


class _Action(ctypes.Structure):
    """struct sigaction of Linux's C libraries."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


def _compiled():
    """Kept on disk beside the decoder, see decode_cpu."""
    signature = types.void(types.int32, types.CPointer(types.uint64), types.voidptr)
    previous = numba.config.CACHE_DIR
    folder = Path(tempfile.gettempdir()) / f"distcls-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    numba.config.CACHE_DIR = previous or str(folder)
    try:
        return numba.cfunc(signature, cache=bool(previous) or folder.stat().st_uid == os.getuid())(_on_bus_error)
    finally:
        numba.config.CACHE_DIR = previous


_handler = None


def guard(file: np.memmap) -> int:
    """From now on reads of `file` always return. Its number, for `lost_pages`; -1 where it is not guarded."""
    global _handler
    if _handler is None:
        _handler = _compiled()
        action, before = _Action(handler=_handler.address, flags=4), _Action()  # SA_SIGINFO
        ctypes.CDLL(None).sigaction(_BUS, ctypes.byref(action), ctypes.byref(before))
        _STATE[1] = before.handler or 0
    first, end = file.ctypes.data, file.ctypes.data + -(-len(file) // mmap.PAGESIZE) * mmap.PAGESIZE
    same = np.flatnonzero(_FILES[:, 0] == first)
    free = np.flatnonzero(_FILES[:, 1] == 0)
    if len(same) or not len(free):
        return int(same[0]) if len(same) else -1
    number = int(free[0])
    _FILES[number] = first, end, 0
    weakref.finalize(file, _forget, number)
    return number


def lost_pages(number: int) -> int:
    """How many pages of a guarded file could not be read so far."""
    return int(_FILES[number, 2]) if number >= 0 else 0


def _forget(number: int) -> None:
    _FILES[number] = 0
