"""What is declared, what is pinned and what the scripts install are one thing; the set-up scripts say clearly what is missing."""

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def declared() -> list[Requirement]:
    """The requirements of setup.cfg, extras included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    blocks = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [Requirement(line) for line in lines if line]


def pinned() -> dict[str, Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "launch/constraints.txt").read_text().splitlines()]
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, filter(None, lines))}


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pin = pinned()[canonicalize_name(requirement.name)]
    [only] = pin.specifier
    assert only.operator == "=="
    assert requirement.specifier.contains(only.version), f"{pin} is tested, but setup.cfg asks for {requirement}"


def test_one_list_of_system_packages() -> None:
    packages = [line for line in (ROOT / "launch/apt.txt").read_text().splitlines() if line.endswith("-dev")]
    assert packages
    for reader in ("launch/setup.sh", "Dockerfile"):
        text = (ROOT / reader).read_text()
        assert "apt.txt" in text
        assert not [name for name in packages if name in text], f"{reader} has a list of its own"


def test_continuous_integration_runs_the_readme_s_command() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec bash launch/test.sh"
    assert "bash launch/test.sh" in (ROOT / "README.md").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without .venv, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "distcls/data/decoding").mkdir(parents=True)
    for name in ("setup.cfg", "pyproject.toml", "distcls/data/decoding/jpeg_window.c"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def set_up(
    checkout: Path, *, commands: dict[str, str], keep: tuple[str, ...] = (), **environment: str
) -> tuple[int, list[str]]:
    """Run setup.sh where PATH has only `commands` (name -> shell text), `keep` and what every system has: exit status, lines of stderr."""
    folder = checkout.parent / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "env", "flock", "head", "mkdir", "rm", "sed", "sha256sum", *keep):
        (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"this system has no {name}"))
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "HOME": os.environ["HOME"], **environment}
    done = subprocess.run(
        ["bash", "launch/setup.sh"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr.splitlines()


PYTHON_311 = 'case "$2" in *_base_executable*) echo "$0";; *python%d*) echo python3.11;; esac'
PYTHON_314 = '[ "$1" = --version ] && echo "Python 3.14.1"; exit 1'
NOTHING = "exit 1"


def test_without_a_right_python_it_says_which_there_is(checkout: Path) -> None:
    assert set_up(checkout, commands={"python3": PYTHON_314}) == (
        1,
        [
            "set-up: distcls needs Python 3.11, 3.12 or 3.13, and neither python3 (Python 3.14.1) nor python3.13 nor python3.12 nor python3.11 is one.",
            "set-up: Install one (Debian 12: apt-get install python3.11; Ubuntu 24.04: python3.12), or name one:",
            "set-up:     DISTCLS_PYTHON=/path/to/python3.12 bash launch/setup.sh",
        ],
    )


def test_a_python_that_was_asked_for_is_not_replaced_by_another(checkout: Path) -> None:
    commands = {"python3": PYTHON_311, "python3.14": PYTHON_314}
    assert set_up(checkout, commands=commands, DISTCLS_PYTHON="python3.14") == (
        1,
        ["set-up: DISTCLS_PYTHON=python3.14 is not Python 3.11, 3.12 or 3.13 but: Python 3.14.1"],
    )


def test_without_root_it_prints_the_apt_line(checkout: Path) -> None:
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("cannot become another user here")
    commands = {
        "python3": PYTHON_311,
        "dpkg-query": '[ "$4" = g++ ] && echo installed',
        "apt-get": NOTHING,
        "sudo": NOTHING,
    }
    # Root is taken for another user by the one variable that the script asks; bash does not let it be set.
    script = checkout / "launch/setup.sh"
    script.write_text(script.read_text().replace("EUID", "OTHER_USER"))
    assert set_up(checkout, commands=commands, OTHER_USER="1000") == (
        1,
        [
            "set-up: these system packages are missing, and installing them needs root. Run this, then start again:",
            "set-up:     sudo apt-get update && sudo apt-get install --no-install-recommends pkg-config libopencv-dev libturbojpeg0-dev libjpeg-dev",
        ],
    )


def test_through_sudo_it_installs_what_is_missing_and_no_more(checkout: Path) -> None:
    log = checkout.parent / "log"
    script = checkout / "launch/setup.sh"
    script.write_text(script.read_text().replace("EUID", "OTHER_USER"))
    commands = {
        "python3": PYTHON_311,
        "dpkg-query": '[ "$4" = g++ ] && echo installed',
        "sudo": f'printf "%s\\n" "$*" >>"{log}"; case "$*" in *install*) echo "E: no such package" >&2; exit 100;; esac',
        "apt-get": NOTHING,
    }
    status, lines = set_up(checkout, commands=commands, OTHER_USER="1000")
    apt = "-n env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600"
    missing = "pkg-config libopencv-dev libturbojpeg0-dev libjpeg-dev"
    assert log.read_text().splitlines() == [
        "-n true",
        f"{apt} update",
        f"{apt} install -y --no-install-recommends {missing}",
    ]
    assert (status, lines) == (
        1,
        ["E: no such package", f"set-up: apt-get could not install: {missing} (its messages are above)"],
    )


def test_without_apt_it_names_the_libraries(checkout: Path) -> None:
    status, lines = set_up(checkout, commands={"python3": PYTHON_311})
    assert status == 1
    assert lines[0] == (
        "set-up: FFCV cannot be compiled yet, and this system has no apt-get. "
        "Missing, by their Debian names: g++ pkg-config libopencv-dev libturbojpeg0-dev libjpeg-dev"
    )


def test_libraries_that_pkg_config_does_not_see(checkout: Path) -> None:
    commands = {"python3": PYTHON_311, "dpkg-query": "echo installed", "g++": "", "pkg-config": NOTHING}
    status, lines = set_up(checkout, commands=commands)
    assert status == 1
    assert lines[0].endswith("/bin/pkg-config does not find opencv4 and libturbojpeg.")


def test_nothing_is_done_twice(checkout: Path) -> None:
    """A .venv that was made from these files is left alone: no Python is looked for, no package asked for."""
    made_from = b"".join(
        (checkout / name).read_bytes()
        for name in (
            "setup.cfg",
            "pyproject.toml",
            "launch/constraints.txt",
            "launch/apt_test.txt",
            "distcls/data/decoding/jpeg_window.c",
        )
    )
    stamp = subprocess.run(["sha256sum"], input=made_from + f"{checkout} \n".encode(), capture_output=True).stdout
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\n")
    (checkout / ".venv/bin/python").chmod(0o755)
    (checkout / ".venv/set-up").write_bytes(stamp)
    assert set_up(checkout, commands={}) == (0, [])
    (checkout / "launch/constraints.txt").write_text("torch==2.15.0\n")
    shutil.rmtree(checkout.parent / "bin")
    status, lines = set_up(checkout, commands={"python3": PYTHON_314, "dpkg-query": NOTHING})
    assert status == 1
    assert lines
