"""What a person changed, as a JSON merge patch (RFC 7396). Setting something to null is what no patch can say."""

from __future__ import annotations

from typing import cast

from banksman.digest import Json


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
