"""A verifier of exports, and of proofs that a tree begins with an earlier one, as somebody wrote it who had read
docs/audit.md and nothing else of Banksman.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _root(leaves[:split]) + _root(leaves[split:])).digest()


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(export: bytes, keys: str) -> str:
    """`good`, or the first thing that is not."""
    known = {kid: (state, key) for kid, state, key in (item.split(":") for item in keys.split(","))}
    leaves: list[bytes] = []
    before, number = "00" * 32, 0
    for line in export.splitlines():
        value = json.loads(line)
        if "statement" not in value:
            leaves.append(hashlib.sha256(b"\x00" + line).digest())
            continue
        text = value["statement"].encode()
        state, key = known[value["kid"]]
        try:
            public = Ed25519PublicKey.from_public_bytes(_unpadded(key))
            public.verify(_unpadded(value["signature"]), b"banksman/head/v1\x00" + text)
        except InvalidSignature:
            return "signature"
        head = json.loads(text)
        if state == "revoked":
            return "revoked"
        if (head["number"], head["previous"]) != (number + 1, before):
            return "chain"
        if (head["size"], head["root"]) != (len(leaves), _root(leaves).hex()):
            return "root"
        before, number = hashlib.sha256(text).hexdigest(), head["number"]
    return "good"


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def extends(first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the path proves that the second tree begins with the first (section 2.1.4.2)."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not path and first_root == second_root
    steps = list(path)
    if first & (first - 1) == 0:
        steps.insert(0, first_root)
    if not steps:
        return False
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old, new = _node(step, old), _node(step, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = _node(new, step)
        place, last = place >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root
