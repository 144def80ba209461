"""Keeps secrets out of what leaves the machine: recipes, command lines and error texts may hold them."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"
# `num_tokens: 3` and `with_cls_token: true` are not secrets: only strings under such a name are.
SECRET_NAME = re.compile(r"(api_?key|access_?key|private_?key|secret|token|passw(or)?d|credentials?)$", re.IGNORECASE)
USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")  # https://user:password@host
SHORTEST_SECRET = 8  # characters; shorter values of secret variables would blot out ordinary words


def redact(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """A copy of nested mappings and lists without secrets.

    Redacted are: strings under a key that names a secret, `name=value` and `--name value` with such a name in lists of
    arguments, passwords in URLs, and the values of environment variables with such a name wherever they occur.
    """
    secrets = [text for name, text in environ.items() if SECRET_NAME.search(name) and len(text) >= SHORTEST_SECRET]
    return _redact(value, secrets)


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
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return USER_INFO.sub(f"{REDACTED}@", value)
    return value


def _names_secret(name: object) -> bool:
    return bool(SECRET_NAME.search(str(name)))
