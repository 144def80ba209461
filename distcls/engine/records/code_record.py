"""Which code a run was trained with: commit and uncommitted changes of every repository that had a part in it."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distcls.tracking.redact import redact_text

GIT_SECONDS = 10.0  # of each question: a checkout on a slow file system must not hold up a run
LARGEST_DIFF = 1_000_000  # characters of each repository's
MOST_FILES = 100  # untracked ones that are named


def code_record(folders: Iterable[Path]) -> tuple[list[dict[str, Any]], str]:
    """Commits, and one text with all changes since them, secrets redacted.

    Args:
        folders: of the recipe, of its plug-ins, of distcls; those outside of any git checkout are left out.

    Returns:
        Per repository `repository`, `commit`, `branch`, `changed` and `untracked` file names, None where git did not
        say; and the text of the diffs, which `git apply` takes, empty without changes. Both are empty where there is no
        git.
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
    """Of git's status, which has two letters and a blank before each name."""
    if entries is None:
        return None
    return [entry[3:] for entry in entries if entry.startswith("??") == untracked][:MOST_FILES]


def _line(folder: Path, *arguments: str) -> str | None:
    said = _git(folder, *arguments)
    return said and said.rstrip("\n")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, None where it fails, is missing or takes too long."""
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
