"""Compiled functions that stay on disk, and are loaded without numba.

numba compiles a function once, on each machine, to object code; whatever process comes later only links that, by LLVM.
numba keeps compiled functions on disk, too, but to load them it has to be imported and set up: 0.4 s of every process.

A module of such functions imports numba, and names in C_FUNCTIONS those that are called from Python, with their
signatures. They get numbers and addresses, allocate nothing and raise nothing, for that needs numba's runtime.

What is on disk gets executed: it is taken from files that nobody but this user, or root, can have written.
"""

import contextlib
import ctypes
import hashlib
import importlib
import importlib.util
import os
import re
import stat
import tempfile
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

_lock = threading.Lock()
_loaded: dict[str, dict[str, int]] = {}
_owners: list[Any] = []  # of the code: LLVM's engines, numba's functions


class Code(NamedTuple):
    """A compiled function: object code, the name that it has there, and the names that it takes from the process."""

    name: str
    needed: list[str]
    code: bytes


def addresses(module: str) -> dict[str, int]:
    """Where `module`'s C_FUNCTIONS are in this process, by name. Compiles them, in seconds, where nobody did before."""
    with _lock:
        if module not in _loaded:
            _loaded[module] = _addresses(module)
    return _loaded[module]


def _addresses(module: str) -> dict[str, int]:
    folder = cache_folder()
    path = folder / f"{module}-{_version(module)}.o" if folder else None
    if path and (found := _read(path)) is not None:
        return {name: _link(code) for name, code in found.items()}
    made = _compile(module)
    _owners.append(made)
    if path and (codes := _codes(made)):
        with contextlib.suppress(OSError):  # a full disk, a folder that may only be read: the next one compiles again
            _write(path, codes)
    return {name: function.address for name, function in made.items()}


def cache_folder() -> Path | None:
    """Local to the node and this user's own; the package's folder may be read-only. None: nothing can be kept.

    NUMBA_CACHE_DIR has its usual meaning where it is set. Else the name is one that others know, in a folder that all
    write to: a link there, or a folder that others may write to, is not used.
    """
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(named)
    try:
        folder = Path(tempfile.gettempdir()) / f"distcls-numba-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:  # nowhere to write
        return None
    return folder if stat.S_ISDIR(found.st_mode) and _ours(found) else None


def _ours(found: os.stat_result) -> bool:
    """Whether nobody but this user, or root, can have written it."""
    return found.st_uid in (0, os.getuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


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


def _compile(module: str) -> dict[str, Any]:
    """As numba's functions, by name."""
    import numba

    vars(numba.config)["DISABLE_JIT"] = 0  # is for looking into Python code: here it would only fail to compile
    made = {}
    for name, (signature, function) in importlib.import_module(module).C_FUNCTIONS.items():
        made[name] = numba.cfunc(signature, error_model="numpy")(function)
    return made


def _codes(made: dict[str, Any]) -> dict[str, Code] | None:
    """The object code of numba's functions; None where this numba does not give it, for it has no public way to it.

    Then each process compiles: numba's own files would not notice that a constant of another module has changed.
    """
    codes = {}
    for name, function in made.items():
        try:
            library = function._library
            _, _, (code, _) = library.serialize_using_object_code()
            declared = [one.name for one in library._final_module.functions if one.is_declaration]
        except (AttributeError, TypeError, ValueError) as error:
            warnings.warn(
                f"numba {version('numba')} does not give its object code ({error}): each process spends seconds on "
                "compiling. launch/constraints.txt names a version that does.",
                stacklevel=2,
            )
            return None
        codes[name] = Code(function.native_name, [one for one in declared if not one.startswith("llvm.")], code)
    return codes


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
    """None where there is no such file, or one that is damaged, somebody else's, or may not be read."""
    try:
        with path.open("rb") as file:
            if not _ours(os.fstat(file.fileno())):
                return None
            content = file.read()
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
    _owners.append(engine)
    return engine.get_function_address(function.name)
