"""Suspicion: what in the text of a call could deceive whoever reads it, said to the reviewer, and what raises its tier.

Everything odd is pointed out. Not everything odd is a trick: words in another script, an emoji, a no-break space or a
long line are what people write. A *sign* is what honest text has no use for: characters that turn the direction of
writing, that nobody can see, or that control a terminal; letters that pass for ASCII within a word of ASCII, or in
what is code, a path or an address; and padding that pushes text out of sight. A secret in what is code is a sign too:
there it is covered, and it runs. A call with a sign that is asked is asked at the highest tier that can be reached, and
no rule allows a call in which something hides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from banksman import detectors, letters, masks
from banksman.digest import Json

_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_EMPTY_LINES, _BLANKS, _LONG = 20, 60, 1000

TURNED, HIDDEN, CONTROL = "turned writing", "hidden characters", "control characters"
LOOK_ALIKE, PADDING = "look-alike characters", "padding"
COVERED = "a covered secret"
_HIDING = (TURNED, HIDDEN, CONTROL)
FILE = "a file that it refers to"


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that honest text has no use for, and the argument that it stands in, or `FILE`."""

    what: str
    argument: str

    @property
    def hides(self) -> bool:
        """Whether something would be unseen, or seen elsewhere, where this is read as plain text."""
        return self.what in _HIDING


def signs(arguments: Mapping[str, Json]) -> Sequence[Sign]:
    """What raises the tier of a call with these arguments."""
    found: dict[Sign, None] = {}
    for name, value in sorted(arguments.items()):
        for field, text in [("", name), *_leaves(name, value)]:
            found |= {Sign(what, name): None for what in _signs(field, text)}
    return list(found)


def of_files(files: Mapping[str, Json]) -> Sequence[Sign]:
    """What raises the tier of a call by what stands in files that it refers to, as they are kept for its reviewer."""
    kept = [cast("Mapping[str, Json]", file) for file in files.values() if file]
    kept += [cast("Mapping[str, Json]", file["before"]) for file in kept if file.get("before")]
    texts = [file.get("text") for file in kept]
    found = {Sign(what, FILE): None for text in texts if isinstance(text, str) for what in _signs("content", text)}
    return list(found)


def in_words(found: Sequence[Sign]) -> str:
    """“hidden characters in `command`, padding in `body`”: no text of the call but names that can carry no message."""
    return ", ".join(dict.fromkeys(f"{sign.what} in {_named(sign.argument)}" for sign in found))


def of(name: str, value: Json) -> Iterator[str]:
    """What a reviewer should know about the text of an argument: hidden or foreign characters, padding, long lines."""
    texts = [name, *(text for _, text in _leaves(name, value))]
    yield from _odd("".join(texts))
    if any(_has_empty_lines(text) for text in texts):
        yield f"more than {_EMPTY_LINES} empty lines in a row; look at what stands below them."
    elif any(_has_empty_lines(text + ".") for text in texts):
        yield f"more than {_EMPTY_LINES} empty lines at the end; nothing stands below them."
    if any(_has_blanks(text) for text in texts):
        yield f"more than {_BLANKS} spaces in a row; look at what stands to their right."
    elif any(_has_blanks(text.replace("\n", ".\n") + ".") for text in texts):
        yield f"more than {_BLANKS} spaces at the end of a line; nothing stands to their right."
    longest = max((len(part) for text in texts for part in text.split("\n")), default=0)
    if longest > _LONG:
        yield f"a line of {longest:,} characters; it is wrapped, and its number stands only at its start."


def _named(argument: str) -> str:
    if argument == FILE:
        return FILE
    return f"`{argument}`" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", argument) else "an argument"


def _leaves(name: str, value: Json) -> Iterator[tuple[str, str]]:
    """Every text in a value with the name of its field; a key of an object is a text of no field."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Json]", value).items():
            yield "", key
            yield from _leaves(key, item)
    elif isinstance(value, list):
        for item in cast("list[Json]", value):
            yield from _leaves(name, item)


# ---- signs

_NOT_PLAIN = re.compile(r"[^\n\t -~]")
# What honest writing needs though nobody sees it: line ends of two characters, emoji of several parts, and joiners
# between Arabic and Indic letters. Each is part of what it follows, so none can be strung together to carry a message.
_FITTING = re.compile(
    "\r(?=\n)"
    "|(?<=[\u00a9-\u3299\U0001f000-\U0001faff])[\ufe0e\ufe0f]"
    "|(?<=[#*0-9])\ufe0f(?=\u20e3)"
    "|(?<=[\u2190-\u3299\ufe0f\U0001f000-\U0001faff])\u200d(?=[\u2190-\u3299\U0001f000-\U0001faff])"
    "|(?<=[\u0620-\u0dff])[\u200c\u200d](?=[\u0620-\u0dff])"
)


def _signs(field: str, text: str) -> Iterator[str]:
    if _has_empty_lines(text) or _has_blanks(text):
        yield PADDING
    if masks.is_code(field) and detectors.find(text):
        yield COVERED
    if not _NOT_PLAIN.search(text):
        return
    honest = _FITTING.sub("", text)
    yield from {_GROUPS[group] for letter in set(_NOT_PLAIN.findall(honest)) if (group := _group(letter)) in _GROUPS}
    if _has_look_alikes(field, honest):
        yield LOOK_ALIKE


def _has_look_alikes(field: str, text: str) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field).lower())
    parts = text.split()
    alone = len(parts) == 1
    if any(map(_ADDRESSES.fullmatch, words)) or (alone and ("://" in text or "@" in text)):
        return not all(part.isascii() for part in [part for part in parts if "@" in part] or parts)
    if not field or any(map(_CODE.fullmatch, words)) or (alone and parts[0].startswith(("/", "~/"))):
        return any(_imitates(letter) or letter.isspace() for letter in set(text) if letter > "\x7f")
    return any(
        re.search(r"[A-Za-z]", word) and any(_imitates(letter) for letter in word)
        for word in re.findall(r"\w+", text)
        if not word.isascii()
    )


_ADDRESSES = re.compile("urls?|uri|href|host|hostname|domain|endpoint|webhook|emails?|to|b?cc|recipients?")
_CODE = re.compile("command|cmd|code|query|script|sql|args|argv|paths?|file|filename|folder|dir|directory|cwd")
_MARKS = frozenset("ıĸſǀ∕⁄⧸∖⧵∣׃꞉∶․‧‐‑‒−˸")
_GREEK_SIGNS = frozenset("ΓΔΘΛΞΠΣΦΨΩδθλμξπφψω")
_APART = re.compile(
    "(CJK|IDEOGRAPHIC|HIRAGANA|KATAKANA|HALFWIDTH|BOPOMOFO|HANGUL|THAI|LAO|KHMER|MYANMAR|TIBETAN|DEVANAGARI|BENGALI"
    "|GURMUKHI|GUJARATI|TAMIL|TELUGU|KANNADA|MALAYALAM|SINHALA|GEORGIAN|ETHIOPIC)[ -]"
)


def _imitates(letter: str) -> bool:
    """Whether a letter or mark may pass for an ASCII one: not if it is Latin with an accent, a Greek letter with a
    shape of its own, or of a script in which nothing looks like ASCII.
    """
    if letter in _MARKS:
        return True
    if letter < "\u0180" or letter in _GREEK_SIGNS:
        return False
    if unicodedata.decomposition(letter).startswith(("<wide>", "<font>")):
        return True
    taken_apart = unicodedata.normalize("NFD", letter)
    accented = len(taken_apart) > 1 and taken_apart[0].isascii()
    return letter.isalpha() and not accented and not _APART.match(unicodedata.name(letter, ""))


# ---- what is pointed out

_TURNING = "the direction of writing is changed, so that plain text would look different from what it is"
_UNSEEN = "there are characters that nobody can see"
_STEERING = "there are characters that control a terminal and are not text"
_FOREIGN = "letters outside plain ASCII are shown by number, because look-alikes exist"
_BLANK = "there are blanks that are not plain spaces"
_GROUPS = {_TURNING: TURNED, _UNSEEN: HIDDEN, _STEERING: CONTROL}


def _odd(value: str) -> Iterator[str]:
    groups: dict[str, Counter[str]] = {}
    for letter, times in Counter(_NOT_PLAIN.findall(value)).items():
        groups.setdefault(_group(letter), Counter())[letter] = times
    for group in (_TURNING, _UNSEEN, _STEERING, _BLANK, _FOREIGN):
        if found := groups.get(group):
            named = ", ".join(f"{_name(letter)} × {times}" for letter, times in found.most_common(4))
            more = f" and {len(found) - 4} others" if len(found) > 4 else ""
            yield f"{group}: {named}{more}."


def _group(letter: str) -> str:
    if letter in _TURNS:
        return _TURNING
    if letters.is_seen(letter):
        return _FOREIGN
    return {"Cc": _STEERING, "Zs": _BLANK}.get(unicodedata.category(letter), _UNSEEN)


def _has_empty_lines(text: str) -> bool:
    runs = groupby(text.rstrip().split("\n"), lambda part: not part.strip())
    return any(empty and len(list(run)) >= _EMPTY_LINES for empty, run in runs)


def _has_blanks(text: str) -> bool:
    plain = re.sub(r"[^\S\n]", " ", text)
    return any(" " * _BLANKS in part.rstrip(" ") for part in plain.split("\n"))


def _name(letter: str) -> str:
    name = unicodedata.name(letter, "") or _CONTROL_NAMES.get(letter, "")
    return f"U+{ord(letter):04X} {name}".rstrip()


_CONTROL_NAMES = {
    "\t": "TAB",
    "\r": "CARRIAGE RETURN",
    "\b": "BACKSPACE",
    "\x1b": "ESCAPE",
    "\x7f": "DELETE",
    "\0": "NULL",
}
