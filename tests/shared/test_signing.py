"""Signed decisions: whose key counts, and for which bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from banksman import digest
from banksman.errors import NotGenuine
from banksman.signing import Signed, Signer, Verifier, unbase64

SIGNER = Signer("k1", b"\x01" * 32)
STATEMENT = {"verdict": "approved", "digest": "00"}


@pytest.mark.parametrize("status", ["current", "retired"])
def test_what_a_current_or_retired_key_signed_is_read_back(status: str) -> None:
    verifier = Verifier.read(SIGNER.public().replace(":current:", f":{status}:"))

    assert verifier.verify(SIGNER.sign(STATEMENT)) == STATEMENT


def test_a_revoked_a_strange_and_an_unknown_key_sign_nothing() -> None:
    signed = SIGNER.sign(STATEMENT)

    for keys, forged in [
        (SIGNER.public().replace(":current:", ":revoked:"), signed),
        (SIGNER.public(), Signer("k1", b"\x02" * 32).sign(STATEMENT)),
        (SIGNER.public(), replace(signed, kid="k2")),
    ]:
        with pytest.raises(NotGenuine):
            Verifier.read(keys).verify(forged)


def test_a_signature_holds_for_its_own_bytes_and_purpose_alone() -> None:
    verifier, signed = Verifier.read(SIGNER.public()), SIGNER.sign(STATEMENT)
    without_purpose = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).sign(signed.statement)

    for forged in [
        replace(signed, statement=digest.canonical({**STATEMENT, "verdict": "denied"})),
        replace(signed, signature=bytes(64)),
        Signed(signed.statement, without_purpose, "k1"),
    ]:
        with pytest.raises(NotGenuine):
            verifier.verify(forged)


def test_what_was_found_genuine_once_vouches_for_nothing_else() -> None:
    verifier, signed = Verifier.read(SIGNER.public()), SIGNER.sign(STATEMENT)
    verifier.verify(signed)["verdict"] = "denied"

    assert verifier.verify(signed) == STATEMENT
    for forged in [
        replace(signed, statement=digest.canonical({**STATEMENT, "verdict": "denied"})),
        replace(signed, signature=signed.signature[:-1] + b"\0"),
    ]:
        with pytest.raises(NotGenuine):
            verifier.verify(forged)
    with pytest.raises(NotGenuine):
        verifier.verify(signed, "policy")


def test_bytes_have_one_spelling() -> None:
    assert unbase64("A" * 22, 16) == bytes(16)

    for text in ("A" * 21 + "B", "A" * 22 + "=", "A" * 21, "A" * 23, "A" * 21 + "\n", "A" * 21 + "+"):
        with pytest.raises(ValueError):  # noqa: PT011  it says nothing more
            unbase64(text, 16)
