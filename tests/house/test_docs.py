"""Every command, option, file and link that README and docs/ name is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from distcls.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
COMMANDS = typer.main.get_command(app).commands


def pieces(page: Path) -> Iterator[str]:
    """The lines of code blocks, and what stands between backticks."""
    text = page.read_text()
    yield from (
        "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", "").splitlines()
    )
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def mistakes_of(words: list[str]) -> Iterator[str]:
    """What is wrong with `distcls WORDS`."""
    commands, command = COMMANDS, None
    while words and commands:
        name = words.pop(0)
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            return  # distcls ..., distcls --help
        if name not in commands:
            yield name
            return
        command = commands[name]
        commands = getattr(command, "commands", None)
    known = {option for one in command.params for option in one.opts} if command else set()
    yield from (
        word
        for word in (word.partition("=")[0] for word in words)
        if word.startswith("-") and word not in known | {"--help"}
    )


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as GitHub forms them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_are_there(page: Path) -> None:
    found = []
    for piece in pieces(page):
        for call in re.findall(r"(?:^|\$ |[;|] )distcls ([^#|;`]*)", piece):
            found += [f"{piece}: {mistake}" for mistake in mistakes_of(call.split())]
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_links_are_there(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"(?:benchmarks|launch|recipes|tests|docs|distcls)/[\w./-]*\w", " ".join(pieces(page)))
    missing = [
        name for name in named if not (ROOT / name).exists() and not re.search("[A-Z]{3}", name)
    ]  # NAME stands for any
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing += [link for link in links if link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_that_are_linked_to_are_there(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()) if "://" not in link[0]]
    missing = [
        f"{name}#{anchor}" for name, anchor in links if anchor not in anchors(page.parent / name if name else page)
    ]
    assert not missing
