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
        Per repository `repository`, `commit`, `branch`, `changed` and `untracked` file names; and the text of the
        diffs, empty without changes. Both are empty where there is no git.
    """
    roots = {root for folder in folders if (root := _git(folder, "rev-parse", "--show-toplevel"))}
    records, diffs = [], []
    for root in sorted(roots):
        at = Path(root)
        status = (_git(at, "status", "--porcelain") or "").splitlines()
        untracked = [line[3:] for line in status if line.startswith("??")]
        records.append(
            {
                "repository": root,
                "commit": _git(at, "rev-parse", "HEAD"),
                "branch": _git(at, "rev-parse", "--abbrev-ref", "HEAD"),
                "changed": [line[3:] for line in status if not line.startswith("??")][:MOST_FILES],
                "untracked": untracked[:MOST_FILES],
            }
        )
        diff = _git(at, "diff", "HEAD") or ""
        if len(diff) > LARGEST_DIFF:
            diff = f"{diff[:LARGEST_DIFF]}\n... cut off: {len(diff)} characters in all\n"
        if diff:
            diffs.append(f"# {root}\n{redact_text(diff)}\n")
    return records, "\n".join(diffs)


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
    return done.stdout.decode(errors="replace").rstrip()
