"""Letters: which of them stand as they are in front of a person, and how every other one is spelled by its number.

It allows instead of forbidding: printable ASCII and line breaks stand, and every other code point, seen or unseen, is
its number, `⟦U+202E⟧`; a covered secret is its mask, `⟦secret: …⟧`. The brackets themselves are not ASCII, so no text
can imitate that spelling, and two different texts never look alike.

`prose` is for words that are only read and never run (reasons, names, what the agent says): there letters of any
script stand, and what is invisible or reorders text is still spelled out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# A mask (`masks`) stands between two halves of letters that no stored text has: a high surrogate, and another one.
MASK = "⟦secret: [ -~]+⟧"
"""A mask as it looks."""
_MASK = "\ud800[ -~]{1,100}\udbff"
_NOT_PLAIN = re.compile(f"{_MASK}|[^\\n -~]")
_PARTS = re.compile(f"{_MASK}|.", re.DOTALL)
_SET_APART = re.compile(rf"(?:⟦U\+[0-9A-F]{{4,6}}⟧)+|{MASK}")

# Default_Ignorable_Code_Point of Unicode 16, and the blanks that are not in it: seen by nobody.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def visible(value: str) -> str:
    """Exact text: printable ASCII and line breaks, every other code point as its number."""
    return _NOT_PLAIN.sub(lambda found: number(found[0]), value)


def line(value: str) -> str:
    """Exact text on one line: a line break is a number too. For names, paths and ids."""
    return visible(value).replace("\n", number("\n"))


def prose(value: str) -> str:
    """Words to be read: letters, marks and symbols of any script stand; the invisible is spelled as its number."""
    if "\udbff" in value:
        return "".join(part if len(part) == 1 and is_seen(part) else number(part) for part in _PARTS.findall(value))
    return "".join(letter if is_seen(letter) else number(letter) for letter in value)


def first(value: str, most: int) -> str:
    """The first so many letters of a text, a mask counted as one."""
    return "".join(_PARTS.findall(value)[:most]) if len(value) > most else value


def pieces(shown: str) -> Iterator[tuple[bool, str]]:
    """Shown text cut into (numbers or a mask?, text), for a page that sets these apart."""
    at = 0
    for found in _SET_APART.finditer(shown):
        if found.start() > at:
            yield False, shown[at : found.start()]
        yield True, found[0]
        at = found.end()
    if at < len(shown):
        yield False, shown[at:]


def is_seen(letter: str) -> bool:
    """Whether a letter can be seen for what it is, by a reader of its script."""
    if letter in " \n" or "!" <= letter <= "~":
        return True
    return unicodedata.category(letter)[0] in "LMNPS" and letter not in "⟦⟧" and not _IGNORABLE.match(letter)


def is_ignorable(letter: str) -> bool:
    """Whether nobody sees a letter and nothing acts on it: not so a tab, which ends a word."""
    return _IGNORABLE.match(letter) is not None


def number(letter: str) -> str:
    """A letter spelled by its number; a mask as it looks."""
    return f"⟦U+{ord(letter):04X}⟧" if len(letter) == 1 else f"⟦{letter[1:-1]}⟧"
