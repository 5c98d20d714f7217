"""Small private files that are whole or absent, never half-written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step; only its owner can read it, from its first moment."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def settings_in(text: str) -> dict[str, str]:
    """What an environment file sets, as compose reads it: lines `NAME=value`, others left aside."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name: value for name, equals, value in pairs if equals}


def with_settings(text: str, values: Mapping[str, str]) -> str:
    """An environment file with these values in place of its own; comments and other lines stay, new names come last."""
    left = dict(values)
    lines: list[str] = []
    for line in text.splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={left.pop(name)}" if name in left else line)
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}={value}" for name, value in left.items())])
