"""Records the code that a run was trained with: commit and uncommitted changes of every repository involved."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distcls.tracking.redact import redact_text

GIT_SECONDS = 10.0  # timeout of each git command: a checkout on a slow file system must not delay a run
LARGEST_DIFF = 1_000_000  # characters per repository
MOST_FILES = 100  # changed and untracked files that are listed, each


def code_record(folders: Iterable[Path]) -> tuple[list[dict[str, Any]], str]:
    """The commit of each repository, and one diff of all uncommitted changes, with secrets redacted.

    Args:
        folders: of the recipe, its plug-ins and distcls; folders outside any git checkout are ignored.

    Returns:
        For each repository `repository`, `commit`, `branch`, `changed` and `untracked` (file names), None where git
        failed; and the diffs as one text for `git apply`, empty if nothing has changed. Both are empty without git.
    """
    roots = {root for folder in folders if (root := _line(folder, "rev-parse", "--show-toplevel"))}
    records, diffs = [], []
    for root in sorted(roots):
        at = Path(root)
        status = _git(at, "status", "--porcelain", "-z", "--no-renames")
        entries = None if status is None else status.split("\0")[:-1]
        records.append(
            {
                "repository": root,
                "commit": _line(at, "rev-parse", "HEAD"),
                "branch": _line(at, "rev-parse", "--abbrev-ref", "HEAD"),
                "changed": _names(entries, untracked=False),
                "untracked": _names(entries, untracked=True),
            }
        )
        diff = _git(at, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD") or ""
        if len(diff) > LARGEST_DIFF:
            diff = f"{diff[:LARGEST_DIFF]}\n... cut off: {len(diff)} characters in all\n"
        if diff:
            diffs.append(f"# {root}\n{redact_text(diff)}")
    return records, "\n".join(diffs)


def _names(entries: list[str] | None, *, untracked: bool) -> list[str] | None:
    """File names from `git status --porcelain`, which puts two letters and a space before each name."""
    if entries is None:
        return None
    return [entry[3:] for entry in entries if entry.startswith("??") == untracked][:MOST_FILES]


def _line(folder: Path, *arguments: str) -> str | None:
    said = _git(folder, *arguments)
    return said and said.rstrip("\n")


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it fails, is not installed or takes too long."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "--no-optional-locks", *arguments],
            capture_output=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
