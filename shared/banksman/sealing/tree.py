"""The Merkle tree of RFC 9162, section 2.1, with SHA-256.

A leaf's hash is SHA-256(0x00 ‖ entry), an inner node's SHA-256(0x01 ‖ left ‖ right), so that neither can be passed off
as the other. A tree of n leaves splits at the largest power of two below n. Whoever stores the hashes of complete
subtrees (`HashOf`) has any proof at the cost of a few look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HashOf = Callable[[int, int], bytes]
"""The hash of a complete subtree: of 2^level leaves, the index-th of them. Level 0 are the leaves."""

BITS = 8
TIER = 1 << BITS
"""Of the inner nodes those are kept whose subtree has 256, 256², … leaves."""

EMPTY = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry (section 2.1.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees (section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows, held as the roots of its complete subtrees, largest first: one for each 1 in its size."""

    def __init__(self, size: int = 0, stack: Iterable[bytes] = ()) -> None:
        self.size = size
        self._stack = list(stack)

    @classmethod
    def of(cls, size: int, hash_of: HashOf) -> Frontier:
        """The frontier of a stored tree."""
        return cls(size, [hash_of(level, start >> level) for start, level in _complete(size)])

    def extend(self, leaves: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
        """Append leaf hashes; the (tier, number, hash) of each kept node that this completes."""
        stack, size, kept = self._stack, self.size, list[tuple[int, int, bytes]]()
        pop, push, new = stack.pop, stack.append, sha256
        for leaf in leaves:
            found, rest, level = leaf, size, 0
            size += 1
            while rest & 1:
                found = new(b"\x01" + pop() + found).digest()
                rest >>= 1
                level += 1
                if level % BITS == 0:
                    kept.append((level // BITS, rest, found))
            push(found)
        self.size = size
        return kept

    def root(self) -> bytes:
        """The Merkle Tree Hash of what has been appended (section 2.1.1)."""
        if not self._stack:
            return EMPTY
        found = self._stack[-1]
        for left in reversed(self._stack[:-1]):
            found = node_hash(left, found)
        return found


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees of one size; as many as some power of two."""
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def inclusion(position: int, size: int, hash_of: HashOf) -> list[bytes]:
    """The path from a leaf to the root of a tree of `size` leaves (section 2.1.3.1)."""
    if not 0 <= position < size:
        raise ValueError(f"There is no leaf {position} among {size}.")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if position < middle:
            path.append(_range(middle, end, hash_of))
            end = middle
        else:
            path.append(_range(start, middle, hash_of))
            start = middle
    return path[::-1]


def includes(leaf: bytes, position: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path leads from the leaf at this position to the root (section 2.1.3.2)."""
    if not 0 <= position < size:
        return False
    place, last, found = position, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(step, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def consistency(first: int, second: int, hash_of: HashOf) -> list[bytes]:
    """The proof that the tree of `second` leaves begins with the one of `first` (section 2.1.4.1)."""
    if not 0 < first <= second:
        raise ValueError(f"A tree of {second} leaves has no earlier one of {first}.")
    path: list[bytes] = []
    start, end, whole = 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(_range(middle, end, hash_of))
            end = middle
        else:
            path.append(_range(start, middle, hash_of))
            start, whole = middle, False
    if not whole:
        path.append(_range(start, end, hash_of))
    return path[::-1]


def _split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _complete(size: int) -> list[tuple[int, int]]:
    """Where the complete subtrees of a tree begin, and their levels, from the left."""
    found: list[tuple[int, int]] = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            found.append((start, level))
            start += 1 << level
    return found


def _range(start: int, end: int, hash_of: HashOf) -> bytes:
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return hash_of(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range(start, middle, hash_of), _range(middle, end, hash_of))
