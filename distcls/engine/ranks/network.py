"""Which network interface gloo and NCCL will use between nodes, checked before they hang on a wrong one."""

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping

import psutil

from distcls.errors import UserError, first_line

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def check_interfaces(*, several_nodes: bool, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse an interface that this host lacks, or one that no other node can reach.

    Gloo, by which CPU ranks train and GPU ranks too agree on a save (`gather_apart`), binds the interface that
    GLOO_SOCKET_IFNAME names, else the address that the host's own name resolves to: on Debian that is 127.0.1.1, and
    every other node waits for it in vain. NCCL never picks a loopback by itself.

    Raises:
        UserError: names the variable, what it says and the interfaces that there are.
    """
    interfaces = addresses()
    for variable, matches in ((GLOO, _is_named), (NCCL, _nccl_matches)):
        if environment.get(variable) and not any(matches(environment[variable], name) for name in interfaces):
            raise UserError(
                f"{variable}={environment[variable]}: {socket.gethostname()} has no such network interface, it has "
                f"{listed(interfaces)}: set it to the one that reaches the other nodes"
            )
    if not several_nodes or _is_this_host(environment.get("MASTER_ADDR", "")):
        return
    if named := environment.get(GLOO):
        if all(_is_loopback(address) for address in interfaces[named]):
            raise UserError(
                f"{GLOO}={named}: no other node can reach the loopback interface of {socket.gethostname()}, which has "
                f"{listed(interfaces)}: set it to the one that reaches the other nodes"
            )
    elif all(_is_loopback(address) for address in _resolved(socket.gethostname())):
        raise UserError(
            f"the name of this host, {socket.gethostname()}, resolves to no address that other nodes can reach, and "
            f"{GLOO} is not set: set it to the interface that reaches the other nodes; there are "
            f"{listed(interfaces)}"
        )


def unreachable(error: Exception) -> UserError:
    """What to say when the ranks could not meet."""
    where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    return UserError(
        f"the ranks could not meet through {where}: {first_line(error)}. All nodes must reach that address, "
        f"and each other through the interface of {GLOO}, on GPUs that of {NCCL} too; {socket.gethostname()} has "
        f"{listed(addresses())}"
    )


def addresses() -> dict[str, list[str]]:
    """The interfaces that are up, and their IP addresses."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = {}
    for name, entries in psutil.net_if_addrs().items():
        own = [entry.address for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
        if name in up and own:
            found[name] = [address.partition("%")[0] for address in own]
    return found


def listed(interfaces: Mapping[str, list[str]]) -> str:
    """``lo (127.0.0.1), eth0 (10.0.0.2)``"""
    return ", ".join(f"{name} ({own[0]})" for name, own in interfaces.items())


def _is_named(value: str, name: str) -> bool:
    return value == name


def _nccl_matches(value: str, name: str) -> bool:
    """NCCL's rule: a list of prefixes, of exact names behind ``=``, or of what not to take behind ``^``."""
    if value.startswith("^"):
        return not _nccl_matches(value[1:], name)
    exact, names = value.startswith("="), value.removeprefix("=").split(",")
    return any(name == one if exact else name.startswith(one) for one in names)


def _resolved(host: str) -> Iterable[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:  # gloo falls back to the loopback
        return {"127.0.0.1"}


def _is_this_host(address: str) -> bool:
    """Ranks that meet on the loopback are on one host, whatever it calls its nodes (a SLURM that is being tried)."""
    return bool(re.fullmatch(r"127(\.\d+){3}|::1", address))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
