"""A mapped file whose bytes are gone: truncated in place by someone, or the disk does not deliver them.

The kernel answers a read of such a page with SIGBUS, which ends a process without a word. Here a handler puts a page of
zeros in the place of the one that is missing, and counts; whoever reads the file looks at the count before it uses what
it read. The handler is compiled, since one of Python's would run only after the read, which never returns.
"""

import ctypes
import mmap
import signal
import weakref

import llvmlite.binding
import numpy as np

from distcls.data.compiled import addresses

STATE = "distcls_bus_error_state"  # as the handler calls it
MOST = 8192  # mapped files at once; what is beyond is not guarded
# The page size and the handler that was there before; then of each file its first address, its end and its lost pages.
_STATE = np.zeros(2 + 3 * MOST, np.uint64)
_FILES = _STATE[2:].reshape(MOST, 3)
_STATE[0] = mmap.PAGESIZE
llvmlite.binding.add_symbol(STATE, _STATE.ctypes.data)


class _Action(ctypes.Structure):
    """struct sigaction of Linux's C libraries."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


_guarding = False


def guard(file: np.memmap) -> int:
    """From now on reads of `file` always return. Its number, for `lost_pages`; -1 where it is not guarded."""
    global _guarding
    if not _guarding:
        handler = addresses("distcls.data.beton.bus_handler")["on_bus_error"]
        action, before = _Action(handler=handler, flags=4), _Action()  # SA_SIGINFO
        ctypes.CDLL(None).sigaction(int(signal.SIGBUS), ctypes.byref(action), ctypes.byref(before))
        _guarding = True
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
