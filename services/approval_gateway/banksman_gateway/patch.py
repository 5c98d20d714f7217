"""What a person changed, as a JSON merge patch (RFC 7396): how edited arguments travel from a form to a vote."""

from __future__ import annotations

from typing import cast

from banksman import digest
from banksman.digest import Json
from banksman.errors import InvalidInput


def between(old: Json, new: Json) -> Json:
    """The patch that leads from old to new. Setting something to null is the one thing that no patch can say."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        _must_have_no_null(new)
        return cast("Json", new)
    before, after = cast("dict[str, Json]", old), cast("dict[str, Json]", new)
    patch: dict[str, Json] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        if key not in before or digest.canonical(before[key]) != digest.canonical(value):
            if value is None:
                raise InvalidInput(_no_null(key))
            patch[key] = between(before.get(key), value)
    return patch


def merged(target: Json, patch: Json) -> Json:
    """What a patch makes of its target (RFC 7396, section 2): null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Json] = dict(cast("dict[str, Json]", target)) if isinstance(target, dict) else {}
    for key, value in cast("dict[str, Json]", patch).items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _must_have_no_null(value: Json) -> None:
    if isinstance(value, dict):
        for key, item in cast("dict[str, Json]", value).items():
            if item is None:
                raise InvalidInput(_no_null(key))
            _must_have_no_null(item)


def _no_null(key: str) -> str:
    return f"{key[:60]!r} cannot be set to null here; leave it out instead."
