"""The stored tree: hashes of complete subtrees, read a block of 256 at a time."""

from __future__ import annotations

from collections.abc import Sequence

from banksman.errors import NotGenuine
from banksman.ledger import Connection, seals
from banksman.sealing import tree


class Stored:
    """Reads in one transaction; what it has read it keeps."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._blocks: dict[tuple[int, int], Sequence[bytes]] = {}

    def hash_of(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree (`tree.HashOf`); `NotGenuine` where rows of it are gone."""
        tier, within = divmod(level, tree.BITS)
        count = 1 << within
        number, start = divmod(index * count, tree.TIER)
        found = self._block(tier, number)[start : start + count]
        if len(found) < count:
            raise NotGenuine(f"The audit log's tree lacks stored hashes of tier {tier} from {index * count} on.")
        return tree.fold(found)

    def _block(self, tier: int, number: int) -> Sequence[bytes]:
        key = (tier, number)
        if key not in self._blocks:
            self._blocks[key] = seals.hashes(self._conn, tier, number * tree.TIER, (number + 1) * tree.TIER)
        return self._blocks[key]
