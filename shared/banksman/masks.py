"""Masks: secrets as they are shown, everywhere that anything is shown: covered, with a fingerprint to compare them by.

    ⟦secret: GitHub token, 33 to 64 characters, 1f0c-77aa-9e42⟧

A mask stands in the place of the secret and of nothing else, says what it is and about how long, and can be lifted by
whoever may decide (`request.revealed` in the audit log). What is hashed and what runs never has masks. Two masks
are alike only where the secrets are: the fingerprint is an HMAC under a key of the deployment, so that it cannot be
worked out from a guess. The brackets are letters that `letters` spells as numbers, so no text can pose as a mask.

What is a secret: whatever `detectors` knows by its form or by the name of its field, and the arguments that the agent's
author (`sensitive_args`) or the policy (`[[sensitive]]`) names. A value of such an argument is covered in what
surrounds the call as well (what the agent says, what the tool returns), but not in the call's other arguments: a model
that may choose what is covered must not be able to cover what runs.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from banksman import detectors, digest
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.signing import unbase64

SENSITIVE = "sensitive"
"""Where an action says which of its arguments its author calls secret: `sensitive`, where there are any."""
CODE = frozenset({"command", "cmd", "code", "query", "script", "sql", "args", "argv", "shell"})
"""Arguments that are always read, also within others: what runs cannot be named secret as a whole."""

_DOMAIN = b"banksman/fingerprint/v1\0"
_SHORTEST_KNOWN = 6
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = re.compile("\ud800([ -~]{1,100})\udbff")
_MASK = "⟦secret: "
_FINGERPRINT = re.compile("(?<=characters), [0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}\udbff")
_GATEWAYS = re.compile("⟦(secret: [ -~]{1,80}, [0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4})⟧")


class Covered(str):
    """Text in which secrets are covered already."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is covered: where, what it is, how long about, and its fingerprint."""

    where: str
    what: str
    size: str
    fingerprint: str
    value: str = field(repr=False)


_key = secrets.token_bytes(32)
Named = Callable[[str, str], Sequence[str]]
"""Of an agent and a tool, the arguments that the policy names as secret."""


def nothing(agent: str, tool: str) -> Sequence[str]:
    """What a policy without `[[sensitive]]` names."""
    del agent, tool
    return ()


_policy: Named = nothing


def use(link_keys: str) -> None:
    """Make fingerprints with a key that follows from the first of these from now on.

    A process that never does makes fingerprints that mean nothing outside of it.
    """
    global _key  # noqa: PLW0603  one key for each process, taken as it starts, as the vault's ring is
    first = unbase64(link_keys.partition(",")[0].partition(":")[2].strip())
    _key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"banksman/fingerprint/v1").derive(first)


def follow(policy: Named) -> None:
    """Cover what the policy names from now on."""
    global _policy  # noqa: PLW0603  as above
    _policy = policy


def fingerprint(value: str) -> str:
    """What stands for a secret in this deployment: the same for the same value, and of no use to who lacks the key."""
    found = hmac.digest(_key, _DOMAIN + value.encode("utf-8", "surrogatepass"), "sha256").hex()
    return f"{found[:4]}-{found[4:8]}-{found[8:12]}"


class Cover:
    """Covers what it is given, and remembers what it found.

    `sensitive` are arguments, one within another as `user.password`; `known` are values that are covered wherever they
    stand.
    """

    def __init__(self, sensitive: Collection[str] = (), known: Collection[str] = ()) -> None:
        self._sensitive = frozenset(sensitive)
        worth = (value for value in known if len(value) >= _SHORTEST_KNOWN and not value.isspace())
        longest_first = sorted(set(worth), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self.found: dict[str, Secret] = {}

    def text(self, text: str, where: str = "") -> Covered:
        """A text with its secrets covered."""
        if isinstance(text, Covered):
            return text
        found = detectors.find(text)
        if self._known is not None:
            spans = (match.span() for match in self._known.finditer(text))
            found = detectors.apart([*found, *(detectors.Found(*span, "secret of a call") for span in spans)])
        out: list[str] = []
        at = 0
        for one in found:
            out += [_spelled(text[at : one.start]), self._mask(text[one.start : one.end], one.what, where)]
            at = one.end
        return Covered("".join([*out, _spelled(text[at:])]))

    def whole(self, value: Json, what: str, where: str) -> Json:
        """A value that is secret as a whole, number by number and text by text; what holds them stays to be seen.

        So does what runs: of it only what has the form of a secret is covered.
        """
        match value:
            case None | bool() | "":
                return value
            case dict():
                inner = cast("dict[str, Json]", value)
                return {
                    self.text(key): self.value(item, f"{where}.{key}")
                    if is_code(key)
                    else self.whole(item, what, f"{where}.{key}")
                    for key, item in inner.items()
                }
            case list():
                return [self.whole(item, what, where) for item in cast("list[Json]", value)]
            case str():
                return value if isinstance(value, Covered) else Covered(self._mask(value, what, where))
            case _:
                return Covered(self._mask(digest.canonical(value).decode(), what, where))

    def value(self, value: Json, path: str = "") -> Json:
        """A JSON value with its secrets covered; `path` is how it is named, as `user.password`."""
        if path in self._sensitive and not is_code(path):
            return self.whole(value, "named by its author", path)
        match value:
            case str():
                what = None if is_code(path) else detectors.of_name(path.rpartition(".")[2], value)
                return self.whole(value, what, path) if what else self.text(value, path)
            case dict():
                return {
                    self.text(key, path): self.value(item, f"{path}.{key}" if path else key)
                    for key, item in cast("dict[str, Json]", value).items()
                }
            case list():
                return [self.value(item, path) for item in cast("list[Json]", value)]
            case bool():
                return value
            case int() if "card" in path.rpartition(".")[2].lower() and detectors.is_card(str(value)):
                return self.whole(value, "card number", path)
            case _:
                return value

    def _mask(self, value: str, what: str, where: str) -> str:
        found = Secret(conceal(where), what, _size(value), fingerprint(value), value)
        self.found.setdefault(found.fingerprint, found)
        return f"\ud800secret: {what}, {found.size}, {found.fingerprint}\udbff"


def of(action: Mapping[str, Json]) -> Cover:
    """What covers a call: its arguments, and the files that it refers to."""
    return Cover(names(action))


def around(*actions: Mapping[str, Json]) -> Cover:
    """What covers the words around calls: also the values that are secret in them."""
    known: list[str] = []
    for action in actions:
        own = of(action)
        own.value(action.get("arguments") or {})
        known += (secret.value for secret in own.found.values())
    return Cover(known=known)


def snapshot(call: Mapping[str, Json], cover: Cover) -> Mapping[str, Json]:
    """A call as it was or is, with the files that it refers to, its secrets covered."""
    arguments, around = cover.value(call.get("arguments")), ("operands", "files")
    found = {name: cover.value(call[name], f"({name})") for name in around if call.get(name)}
    return {**call, **({"arguments": arguments} if "arguments" in call else {}), **found}


def names(action: Mapping[str, Json]) -> Sequence[str]:
    """The arguments of a call that are secret: its author named them when it was asked, and the policy does now."""
    found = action.get(SENSITIVE)
    own = [name for name in cast("list[Json]", found) if isinstance(name, str)] if isinstance(found, list) else []
    return [*own, *_policy(str(action.get("agent", "")), str(action.get("tool", "")))]


def is_code(path: str) -> bool:
    """Whether an argument, as `step.command`, is one that is always read."""
    return path.rpartition(".")[2].lower() in CODE


def conceal(text: str) -> str:
    """A text for a log: its secrets covered, without fingerprints, and nothing else changed."""
    return plain(concealed(text)) if detectors.find(text) else text


def concealed(text: str) -> Covered:
    """A text for a terminal, its secrets covered without fingerprints, which only the gateway can make.

    What the gateway has covered stays as it is.
    """
    covered = _FINGERPRINT.sub("\udbff", Cover().text(text))
    return Covered(_GATEWAYS.sub("\ud800\\1\udbff", covered))


def plain(value: Json) -> Json:
    """A covered value as programs are told it: masks as they look, everything else as it is."""
    match value:
        case str():
            return _SHOWN.sub(_told, value)
        case dict():
            return {plain(key): plain(item) for key, item in cast("dict[str, Json]", value).items()}
        case list():
            return [plain(item) for item in cast("list[Json]", value)]
        case _:
            return value


def restored(edited: Json, original: Json, sensitive: Collection[str], path: str = "") -> Json:
    """An edit with every mask that stands where it stood turned back into what it covers.

    `InvalidInput` where a mask was moved, changed or cut: nobody means to send its text.
    """
    if isinstance(edited, str):
        if edited == original or _MASK not in edited:
            return edited
        if edited == plain(Cover(sensitive).value(original, path)):
            return original
        raise InvalidInput(
            f"{path or 'The value'} holds the text of a mask, {_MASK}…⟧, and not a value. Leave the field as it was, or"
            " write all of it anew."
        )
    if isinstance(edited, dict) and any(_MASK in key for key in cast("dict[str, Json]", edited)):
        raise InvalidInput(f"{path or 'The value'} has the text of a mask, {_MASK}…⟧, for a name.")
    return _beside(edited, original, path, lambda part, was, at: restored(part, was, sensitive, at))


def carried(edited: Json, original: Json, sensitive: Collection[str], path: str = "") -> Json:
    """An edit as a form carries it on: what it left as it was is covered, for `restored` to put back."""
    if not isinstance(edited, dict | list) and edited == original:
        return plain(Cover(sensitive).value(edited, path))
    return _beside(edited, original, path, lambda part, was, at: carried(part, was, sensitive, at))


def _beside(edited: Json, original: Json, path: str, turned: Callable[[Json, Json, str], Json]) -> Json:
    """An edit with each of its parts turned into something else, beside what stood in its place and how it is named."""
    match edited:
        case dict():
            before = cast("dict[str, Json]", original) if isinstance(original, dict) else {}
            return {
                key: turned(item, before.get(key), f"{path}.{key}" if path else key)
                for key, item in cast("dict[str, Json]", edited).items()
            }
        case list():
            rows = cast("list[Json]", original) if isinstance(original, list) else []
            return [
                turned(item, rows[place] if place < len(rows) else None, path)
                for place, item in enumerate(cast("list[Json]", edited))
            ]
        case _:
            return edited


def _told(found: re.Match[str]) -> str:
    return f"⟦{found[1]}⟧" if found[1].startswith("secret: ") else chr(int(found[1].removeprefix("U+"), 16))


def _spelled(text: str) -> str:
    """A lone surrogate, of which masks are made here, can only stand for itself."""
    return _SURROGATE.sub(lambda found: f"\ud800U+{ord(found[0]):04X}\udbff", text)


def _size(value: str) -> str:
    least, most = 1, 8
    while len(value) > most:
        least, most = most + 1, most * 2
    return f"{least:,} to {most:,} characters"
