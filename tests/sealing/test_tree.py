"""The Merkle tree of RFC 9162: against a plain reading of its definitions, at every size up to a few hundred."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman.sealing import tree
from tests.sealing import outsider

LEAVES = [tree.leaf_hash(str(number).encode()) for number in range(600)]


def plain(leaves: list[bytes]) -> bytes:
    """Section 2.1.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + plain(leaves[:split]) + plain(leaves[split:])).digest()


def hash_of(level: int, index: int) -> bytes:
    return plain(LEAVES[index << level : (index + 1) << level])


def test_the_known_roots_of_the_test_vectors() -> None:
    entries = [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43"]
    grown = tree.Frontier()
    grown.extend(map(tree.leaf_hash, entries[:1]))
    assert grown.root().hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    grown.extend(map(tree.leaf_hash, entries[1:3]))
    assert grown.root().hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert tree.Frontier().root() == tree.EMPTY == sha256(b"").digest()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 255, 256, 257, 511, 600])
def test_a_tree_that_grows_has_the_root_of_one_that_is_read(size: int) -> None:
    grown = tree.Frontier()
    for leaf in LEAVES[:size]:
        grown.extend([leaf])

    assert grown.root() == plain(LEAVES[:size]) == tree.Frontier.of(size, hash_of).root()


def test_every_256_leaves_leave_a_node_behind() -> None:
    kept = tree.Frontier().extend(LEAVES)

    assert kept == [(1, number, plain(LEAVES[number * 256 : (number + 1) * 256])) for number in (0, 1)]


@given(st.data())
def test_a_leaf_is_proven_at_its_own_place_alone(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    position = data.draw(st.integers(0, size - 1))
    root = plain(LEAVES[:size])

    path = tree.inclusion(position, size, hash_of)

    assert tree.includes(LEAVES[position], position, size, path, root)
    for wrong in (position + 1, position - 1, size):
        assert not tree.includes(LEAVES[position], wrong, size, path, root)
    assert not tree.includes(LEAVES[599], position, size, path, root)
    assert not tree.includes(LEAVES[position], position, size, [*path, root], root)
    if path:
        assert not tree.includes(LEAVES[position], position, size, path[:-1], root)


@given(st.data())
def test_a_tree_proves_that_it_begins_with_an_earlier_one(data: st.DataObject) -> None:
    second = data.draw(st.integers(1, 300))
    first = data.draw(st.integers(1, second))
    old, new = plain(LEAVES[:first]), plain(LEAVES[:second])

    path = tree.consistency(first, second, hash_of)

    assert outsider.extends(first, second, old, new, path)
    assert not outsider.extends(first, second, sha256(old).digest(), new, path)
    assert not outsider.extends(first, second, old, sha256(new).digest(), path)
    assert not outsider.extends(first, second, old, new, [*path, old])
