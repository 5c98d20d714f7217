"""What exactly was asked, as bytes and as a hash: strict JSON intake, canonical form (RFC 8785) and the digest.

A person approves bytes. Intake therefore refuses every text that two readers could read differently: duplicate keys,
NaN and infinities, numbers that overflow, integers past 2^53-1, lone surrogates, deep nesting and oversize.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import rfc8785

from banksman.errors import InvalidInput

Json = Any
"""Any JSON value. Values enter through `parse` or `check`, never unchecked."""

MAX_BYTES = 256 * 1024
MAX_CONTEXT_BYTES = 64 * 1024 * 1024
"""Of what a request has around its call: the files that it refers to, what was approved before."""
MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1

_ACTION = b"banksman/action/v1\0"
_SURROGATE = re.compile("[\ud800-\udfff]")
# The standard library's encoder is seven times as fast, and writes the canonical form of everything but of fractions,
# of integers that are too long, and of keys past U+DFFF, which UTF-16 sorts in another order. What might be one of
# these (a string may look like a number) is left to the library that knows.
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":"))
_NUMBERS = re.compile(r"[\[:,]-?(?:\d+[.e]|\d{16}|[IN])")
_LATE = re.compile("[\ue000-\U0010ffff]")


def parse(text: bytes | str, *, what: str = "The JSON text", limit: int = MAX_BYTES) -> Json:
    """JSON text → value, refusing whatever two readers could read differently (RFC 7493 and stricter)."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > limit:
        raise InvalidInput(f"{what} is {len(raw):,} bytes long; {limit:,} are allowed.")
    try:
        decoded = raw.decode("utf-8")
        # json's own C scanner recurses: a text nested past the limit is refused before it is read.
        value: Json = json.loads(decoded, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except UnicodeDecodeError:
        raise InvalidInput(f"{what} is not UTF-8, or holds a lone surrogate.") from None
    except RecursionError:
        raise InvalidInput(f"{what} is nested deeper than {MAX_DEPTH} levels.") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from None
    except ValueError as error:
        raise InvalidInput(f"{what} {error}") from None
    return check(value, what=what)


def check(value: Json, *, what: str = "The value") -> Json:
    """The same value, once it is known that it has one canonical form; otherwise `InvalidInput`."""
    problem = _problem(value, 1)
    if problem is not None:
        raise InvalidInput(f"{what} {problem}")
    return value


def canonical(value: Json) -> bytes:
    """The canonical bytes of a checked value (RFC 8785)."""
    text = _ENCODER.encode([value])  # in a list, so that every number has something before it
    otherwise = _NUMBERS.search(text) or (not text.isascii() and _LATE.search(text))
    return rfc8785.dumps(value) if otherwise else text[1:-1].encode()


def of_action(action: Mapping[str, Json]) -> bytes:
    """The digest of an action: SHA-256 over a domain prefix and its canonical bytes."""
    return hashlib.sha256(_ACTION + canonical(action)).digest()


def of_schema(schema: Mapping[str, Json]) -> bytes:
    """The hash of a tool's JSON schema, by its canonical bytes."""
    return _of_schema(json.dumps(schema))


@lru_cache(maxsize=1024)
def _of_schema(text: str) -> bytes:
    # Tools are few and called often; canonical JSON takes twenty times as long as this look-up.
    return hashlib.sha256(canonical(json.loads(text))).digest()


def shape(tool: str, arguments: Json) -> bytes:
    """A short hash of a tool and the keys and types of its arguments, equal for calls that look alike."""
    return hashlib.sha256(canonical([tool, _skeleton(arguments)])).digest()[:8]


def _skeleton(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _skeleton(item) for key, item in cast("dict[str, Json]", value).items()}
    if isinstance(value, list):
        return [_skeleton(item) for item in cast("list[Json]", value)[:1]]
    return type(value).__name__


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {key[:60]!r} twice in one object.")
        found[key] = value
    return found


def _constant(name: str) -> Json:
    raise ValueError(f"holds {name}, which JSON does not have.")


def _integer(digits: str) -> int:
    if len(digits) > 17:
        raise ValueError("holds an integer past 2^53-1, which readers round differently.")
    return int(digits)


def _problem(value: Json, depth: int) -> str | None:
    match value:
        case None | bool():
            return None
        case str():
            return "holds a lone surrogate." if _SURROGATE.search(value) else None
        case int():
            if abs(value) > MAX_INTEGER:
                return "holds an integer past 2^53-1, which readers round differently."
            return None
        case float():
            return None if math.isfinite(value) else "holds a number that is not finite."
        case dict() | list():
            if depth > MAX_DEPTH:
                return f"is nested deeper than {MAX_DEPTH} levels."
            return _problem_within(cast("dict[Json, Json] | list[Json]", value), depth)
        case _:
            return f"holds a {type(value).__name__}, which is not JSON."


def _problem_within(value: dict[Json, Json] | list[Json], depth: int) -> str | None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"has a key that is a {type(key).__name__}, not a string."
            problem = _problem(key, depth) or _problem(item, depth + 1)
            if problem is not None:
                return problem
        return None
    for item in value:
        problem = _problem(item, depth + 1)
        if problem is not None:
            return problem
    return None


def printable(text: str) -> str:
    """The same text with lone surrogates, which no JSON reader agrees on, replaced."""
    return _SURROGATE.sub("\ufffd", text)
