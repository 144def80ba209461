"""Compiled functions that stay on disk, and are loaded without numba.

numba compiles a function once, on each machine, to object code; whatever process comes later only links that, by LLVM.
numba keeps compiled functions on disk, too, but to load them it has to be imported and set up: 0.4 s of every process.

A module of such functions imports numba, and names in C_FUNCTIONS those that are called from Python, with their
signatures. They get numbers and addresses, allocate nothing and raise nothing, for that needs numba's runtime.
"""

import contextlib
import ctypes
import hashlib
import importlib
import importlib.util
import os
import re
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

_lock = threading.Lock()
_loaded: dict[str, dict[str, int]] = {}
_engines: list[llvm.ExecutionEngine] = []  # own the code


class Code(NamedTuple):
    """A compiled function: object code, the name that it has there, and the names that it takes from the process."""

    name: str
    needed: list[str]
    code: bytes


def addresses(module: str) -> dict[str, int]:
    """Where `module`'s C_FUNCTIONS are in this process, by name. Compiles them, in seconds, where nobody did before."""
    with _lock:
        if module not in _loaded:
            _loaded[module] = {name: _link(code) for name, code in _functions(module).items()}
    return _loaded[module]


def _functions(module: str) -> dict[str, Code]:
    """From disk, or compiled."""
    folder = cache_folder()
    if folder is None:
        return _compile(module)
    path = folder / f"{module}-{_version(module)}.o"
    if (found := _read(path)) is not None:
        return found
    made = _compile(module)
    with contextlib.suppress(OSError):  # a full disk, a folder that may only be read: the next process compiles again
        _write(path, made)
    return made


def cache_folder() -> Path | None:
    """Local to the node and this user's own; the package's folder may be read-only. None: nothing can be kept.

    NUMBA_CACHE_DIR has its usual meaning where it is set.
    """
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named)
    folder = Path(tempfile.gettempdir()) / f"distcls-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.stat().st_uid == os.getuid() else None  # what is there gets executed


def _version(module: str) -> str:
    """Of all that object code depends on: also constants and types that the module imports from others of ours."""
    source = _source(module)
    sources = [source, *(_source(name) for name in re.findall(r"^from (distcls\.[\w.]+) import", source, re.MULTILINE))]
    machine = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    parts = (*sources, version("numba"), version("llvmlite"), version("numpy"), *machine)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


def _compile(module: str) -> dict[str, Code]:
    import numba

    made = {}
    for name, (signature, function) in importlib.import_module(module).C_FUNCTIONS.items():
        compiled: Any = numba.cfunc(signature, error_model="numpy")(function)
        _, _, (code, _) = compiled._library.serialize_using_object_code()
        declared = [one.name for one in compiled._library._final_module.functions if one.is_declaration]
        made[name] = Code(compiled.native_name, [one for one in declared if not one.startswith("llvm.")], code)
    return made


def _write(path: Path, made: dict[str, Code]) -> None:
    """For each function a line of names and bytes, then its code; ahead of all a hash, for damaged files."""
    content = b""
    for name, (symbol, needed, code) in made.items():
        content += f"{name} {symbol} {','.join(needed)} {len(code)}\n".encode() + code
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _read(path: Path) -> dict[str, Code] | None:
    """None where there is no such file, or one that is damaged or may not be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    found = {}
    while content:
        line, _, content = content.partition(b"\n")
        name, symbol, needed, size = line.decode().split(" ")
        found[name] = Code(symbol, needed.split(","), content[: int(size)])
        content = content[int(size) :]
    return found


def _link(function: Code) -> int:
    """Its address."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)  # from here on LLVM knows the process's names
    for name in function.needed:
        # Parts of numba's runtime are not here. They raise, or give memory back: should one be reached after all, that
        # ends the process. But each needs an address, or LLVM takes none of the function's names from the process.
        if llvm.address_of_symbol(name) is None:
            llvm.add_symbol(name, ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value)
    engine.add_object_file(llvm.ObjectFileRef.from_data(function.code))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(function.name)
