"""Surviving SIGBUS: a mapped file was truncated in place, or its disk fails to deliver a page.

The kernel answers a read of such a page with SIGBUS, which kills the process without a message. The handler installed
here maps a page of zeros in its place and counts it; readers check the count before they use what they read. The
handler is compiled, because a Python handler would run only after the faulting read, which never returns.
"""

import ctypes
import mmap
import signal
import weakref

import llvmlite.binding
import numpy as np

from distcls.data.compiled import addresses

STATE = "distcls_bus_error_state"  # symbol by which the handler finds the state
MOST = 8192  # mapped files guarded at once; further ones are not guarded
# The page size and the previous handler; then per file: start address, end address, number of lost pages.
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
    """Make reads of `file` return even if its bytes are gone.

    Returns:
        The file's number for `lost_pages`; -1 if too many files are mapped to guard this one.
    """
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
    """Number of pages of a guarded file that could not be read so far; 0 for -1."""
    return int(_FILES[number, 2]) if number >= 0 else 0


def _forget(number: int) -> None:
    _FILES[number] = 0
