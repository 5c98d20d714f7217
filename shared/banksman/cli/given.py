"""What several commands take: ids from the line or from standard input, whom to act as, how to print."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from banksman.errors import InvalidInput

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Ids; read from standard input when none is given.", show_default=False),
]
As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="EMAIL", help="Act as this reviewer of the stack on this machine.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")]

_ID = re.compile(r"(?:run|req|key|gra)_[0-9a-f]{32}")


def read_ids(given: Sequence[str] | None, *, prefix: str) -> list[str]:
    """The ids to work on, all of one kind and each once."""
    if given:
        words = list(given)
    elif sys.stdin.isatty():
        raise InvalidInput(f"Give at least one id of the form {prefix}_….")
    else:
        words = [word for word in sys.stdin.read().split() if word.startswith(f"{prefix}_")]
        if not words:
            raise InvalidInput(f"There is no id of the form {prefix}_… on standard input.")
    for word in words:
        if not _ID.fullmatch(word) or not word.startswith(prefix):
            raise InvalidInput(f"{word[:60]!r} is not an id of the form {prefix}_ and 32 hex digits.")
    return list(dict.fromkeys(words))
