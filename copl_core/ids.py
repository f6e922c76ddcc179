"""Ids travel with rows: find the row of an id in a table."""

from __future__ import annotations

import numpy as np

ABSENT = -1


def rows_of(ids: np.ndarray, table: np.ndarray, *, ordered: bool = False) -> np.ndarray:
    """Row of each id (any shape) in ``table`` (n,); −1 for an absent id.

    Args:
        ordered: the table is ascending, which saves sorting it.
    """
    ids = np.asarray(ids, np.int64)
    if not len(table):
        return np.full(ids.shape, ABSENT, np.int64)
    if ordered:
        rows = np.minimum(np.searchsorted(table, ids), len(table) - 1)
        return np.where(table[rows] == ids, rows, ABSENT)
    order = np.argsort(table, kind="stable")
    position = np.minimum(np.searchsorted(table, ids, sorter=order), len(table) - 1)
    rows = order[position]
    return np.where(table[rows] == ids, rows, ABSENT)
