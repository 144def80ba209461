"""The compiled SIGBUS handler of bus_error.py."""

# numba's types inside compiled functions are not Python's.
# mypy: ignore-errors

import mmap
import signal

import llvmlite.ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from distcls.data.beton.bus_error import MOST, STATE

_mmap = types.ExternalFunction(
    "mmap", types.intp(types.uint64, types.uint64, types.int32, types.int32, types.int32, types.int64)
)
_signal = types.ExternalFunction("signal", types.intp(types.int32, types.uint64))
_ZEROS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
_READ, _BUS = mmap.PROT_READ, int(signal.SIGBUS)


@intrinsic
def _state(typing_context):
    """The state of bus_error.py, by symbol name, because its address differs between processes."""

    def generate(context, builder, signature, arguments):
        known = builder.module.globals.get(STATE)
        place = known or llvmlite.ir.GlobalVariable(builder.module, llvmlite.ir.IntType(64), STATE)
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return types.CPointer(types.uint64)(), generate


def _on_bus_error(number, info, context):
    """void (int, siginfo_t *, void *); si_addr is 16 bytes into siginfo_t."""
    state, address = _state(), info[2]
    for at in range(2, 2 + 3 * MOST, 3):
        if state[at] <= address < state[at + 1]:
            state[at + 2] += np.uint64(1)
            page = address // state[0] * state[0]
            _mmap(page, state[0], np.int32(_READ), np.int32(_ZEROS), np.int32(-1), np.int64(0))
            return
    _signal(np.int32(_BUS), state[1])  # not a guarded file: the read is retried under the previous handler


C_FUNCTIONS = {"on_bus_error": (types.void(types.int32, types.CPointer(types.uint64), types.voidptr), _on_bus_error)}
