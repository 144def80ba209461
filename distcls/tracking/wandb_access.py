"""Whether W&B can be reached from here, found out in seconds and without a prompt."""

import contextlib
import netrc
import os
import urllib.error
import urllib.request
from typing import Literal
from urllib.parse import urlsplit

from distcls.errors import ArgumentError, first_line
from distcls.tracking.bounded import within

Mode = Literal["auto", "online", "offline"]

NO_KEY = "no API key"
PROBE_SECONDS = 8.0  # for the server to answer anything at all, name resolution included


def wanted_mode(mode: Mode) -> tuple[str, str]:
    """wandb's mode, and why it is not online."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"  # type: ignore[assignment]
        if mode == "auto":
            os.environ.pop("WANDB_MODE", None)  # wandb refuses an empty one
        if mode in ("offline", "disabled", "dryrun"):
            return "disabled" if mode == "disabled" else "offline", f"WANDB_MODE={mode}"
    if mode == "offline":
        return "offline", "tracking.mode: offline"
    why = out_of_reach()
    if why == NO_KEY and mode == "online":
        raise ArgumentError(
            "tracking.mode",
            "no W&B API key, but the mode is online. Run `wandb login`, set WANDB_API_KEY, or take tracking.mode=auto "
            "(offline without a key)",
        )
    return ("offline", why) if why else ("online", "")


def out_of_reach() -> str:
    """Why nothing can be written to W&B; empty if it can."""
    import wandb

    try:
        settings = wandb.setup().settings
        url = settings.base_url
        key = settings.api_key or settings.identity_token_file or _netrc_key(url)
    except Exception as error:  # a key of the wrong form, an unreadable settings file
        return first_line(error)
    return _unreachable(url) if key else NO_KEY


def _netrc_key(url: str) -> str | None:
    """The key that `wandb login` has stored."""
    files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for p in map(os.path.expanduser, filter(None, files)) if os.path.exists(p)), None)
    try:
        entry = netrc.netrc(path).authenticators(urlsplit(url).netloc) if path else None
    except (netrc.NetrcParseError, OSError):
        return None
    return entry[2] if entry else None


def _unreachable(url: str) -> str:
    """Why no W&B server is at `url`; empty if it answers. wandb itself would find out after a minute or two."""

    def ask() -> None:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url, timeout=PROBE_SECONDS):
            pass

    try:
        within(PROBE_SECONDS, ask)
    except (OSError, ValueError) as error:
        return f"{url} does not answer: {first_line(getattr(error, 'reason', error))}"
    return ""
