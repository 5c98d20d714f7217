"""A verifier of exports as somebody wrote it who had read docs/audit.md and nothing else of Banksman."""

from __future__ import annotations

import base64
import hashlib
import json

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
