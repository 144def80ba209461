"""Removes secrets from what leaves the machine: recipes, command lines and error texts may contain them."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"
# Only strings under such a name are secrets: `num_tokens: 3` and `with_cls_token: true` are not.
NAMES = r"(?:(?:api|access|private)[_-]?key|secret|token|passw(?:or)?d|passphrase|credentials?)"
SECRET_NAME = re.compile(f"{NAMES}$", re.IGNORECASE)
# api_key: 0123... or "token" = "..." in code and YAML, if the value is long and not a call or list.
SECRET_LINE = re.compile(rf"({NAMES}[\"']?\s*[:=]\s*[\"']?)([^\s\"',()\[\]{{}}]{{8,}})", re.IGNORECASE)
USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")  # https://user:password@host
SHORTEST_SECRET = 8  # characters; shorter values would match ordinary words


def redact(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """A copy of nested mappings and lists without secrets.

    Redacted are: strings under a key that names a secret, `name=value` and `--name value` with such a name in lists of
    arguments, passwords in URLs, and the values of environment variables with such a name wherever they occur.
    """
    return _redact(value, _secrets(environ))


def redact_text(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Code, YAML or a diff without secrets: those of `redact`, and long values after the name of a secret."""
    return SECRET_LINE.sub(rf"\1{REDACTED}", _cleaned(text, _secrets(environ)))


def _redact(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: REDACTED if isinstance(item, str) and item and _names_secret(key) else _redact(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [_redact(item, secrets) for item in value]
        for index, item in enumerate(items[1:], 1):
            option = value[index - 1]
            if isinstance(option, str) and option.startswith("--") and _names_secret(option) and isinstance(item, str):
                items[index] = REDACTED
        return items
    if isinstance(value, str):
        name, equals, _ = value.partition("=")
        if equals and _names_secret(name):
            return f"{name}={REDACTED}"
        return _cleaned(value, secrets)
    return value


def _cleaned(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return USER_INFO.sub(f"{REDACTED}@", text)


def _secrets(environ: Mapping[str, str]) -> list[str]:
    """The longest first, in case one secret begins with another."""
    found = [text for name, text in environ.items() if SECRET_NAME.search(name) and len(text) >= SHORTEST_SECRET]
    return sorted(found, key=len, reverse=True)


def _names_secret(name: object) -> bool:
    return bool(SECRET_NAME.search(str(name)))
