"""What is stored: nobody reads it without the key, and nothing opens in a row or column that it was not sealed for."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman import signing, vault
from banksman.errors import ConfigurationError, NotGenuine, NotHere

ONE = f"k1:{signing.base64url(bytes([1] * 32))}"
TWO = f"k2:{signing.base64url(bytes([2] * 32))}"
RUN = UUID(int=1)
ROW = ("executions.result", RUN, 3, "call_1", 1)


@pytest.fixture(autouse=True)
def _one_key(_sealed: None) -> None:
    vault.use(ONE)


@given(st.binary(max_size=300))
def test_what_is_sealed_opens_and_shows_nothing_of_itself(body: bytes) -> None:
    stored = vault.seal(body, ROW)

    assert vault.open_sealed(stored, ROW) == body
    assert len(body) < 8 or body not in stored
    assert vault.length(len(stored), stored[0]) == len(body)
    assert vault.seal(body, ROW) != stored


@pytest.mark.parametrize(
    "elsewhere",
    [
        ("executions.result", uuid4(), 3, "call_1", 1),
        ("executions.result", RUN, 4, "call_1", 1),
        ("executions.result", RUN, 3, "call_2", 1),
        ("executions.result", RUN, 3, "call_1", 2),
        ("executions.result", RUN, 3),
        ("runs.output", RUN, 3, "call_1", 1),
    ],
)
def test_what_was_moved_to_another_row_or_column_does_not_open(elsewhere: vault.Row) -> None:
    stored = vault.seal(b"refund 40", ROW)

    with pytest.raises(NotGenuine, match=r"belongs to another row or column\. Nothing was done"):
        vault.open_sealed(stored, elsewhere)


def test_no_byte_of_a_sealed_value_can_be_changed() -> None:
    stored = vault.seal(b"refund 40", ROW)

    for place in range(len(stored)):
        changed = bytearray(stored)
        changed[place] ^= 0x01
        try:
            opened = vault.open_sealed(bytes(changed), ROW)
        except (NotGenuine, NotHere):
            continue
        raise AssertionError(f"byte {place} was changed, and it opened as {opened!r}")
    for short in (b"", stored[:1], stored[:20], stored[: vault.HEAD], stored[:-1], b"\x07abc"):
        with pytest.raises(NotGenuine):
            vault.open_sealed(short, ROW)


def test_what_was_stored_without_a_key_opens_with_one_only_where_the_ring_says_so() -> None:
    vault.use("")
    stored = vault.seal(b"plain", ROW)
    assert stored == b"\x00plain"
    assert vault.open_sealed(stored, ROW) == b"plain"

    vault.use(f"{ONE},plain")
    assert vault.open_sealed(stored, ROW) == b"plain"
    assert vault.seal(b"plain", ROW)[:1] == b"\x01"
    vault.use(ONE)
    with pytest.raises(NotGenuine, match=r"is not encrypted.*add `plain`"):
        vault.open_sealed(stored, ROW)
    assert vault.length(len(stored), stored[0]) == 5


def test_a_process_without_the_key_says_so_and_what_to_do() -> None:
    stored = vault.seal(b"x", ROW)
    vault.use(TWO)

    with pytest.raises(NotHere, match=r"'k1'.*restart"):
        vault.open_sealed(stored, ROW)
    vault.use(TWO.replace("k2", "k1"))
    with pytest.raises(NotGenuine, match="'k1' is another key here"):
        vault.open_sealed(stored, ROW)


def test_a_key_is_rotated_by_its_head_alone() -> None:
    stored = vault.seal(b"refund 40", ROW)
    vault.use(f"{TWO},{ONE}")
    head = vault.reseal(stored[: vault.HEAD], ROW)
    vault.use(TWO)

    assert vault.open_sealed(head + stored[vault.HEAD :], ROW) == b"refund 40"
    assert head.startswith(vault.prefix("k2"))


@pytest.mark.parametrize(
    "text", ["k1", "k1:short", "K1:" + ONE[3:], f"{ONE},{ONE}", "toolongname:" + ONE[3:], "plain:" + ONE[3:]]
)
def test_a_ring_that_cannot_be_used_stops_the_start_up(text: str) -> None:
    with pytest.raises(ConfigurationError, match="BANKSMAN_VAULT_KEYS"):
        vault.use(text)
