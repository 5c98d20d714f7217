"""Ids sort by age: what a model asked in one turn is listed, and started, in the order in which it was asked."""

from __future__ import annotations

from uuid import RFC_4122

from banksman import ids


def test_ids_of_one_process_sort_in_the_order_they_were_made() -> None:
    made = [ids.new() for _ in range(20_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(found.version, found.variant) for found in made} == {(7, RFC_4122)}
