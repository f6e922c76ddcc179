"""Rows are found by id, wherever they stand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copl_core.ids import ABSENT, rows_of

IDS = st.lists(st.integers(-5, 40), unique=True, max_size=20)


@given(table=IDS, wanted=st.lists(st.integers(-5, 40), max_size=20))
def test_a_row_is_where_its_id_stands_and_absent_ids_have_none(table, wanted):
    rows = rows_of(np.array(wanted, np.int64), np.array(table, np.int64))
    assert rows.tolist() == [table.index(one) if one in table else ABSENT for one in wanted]


@given(table=IDS.filter(len), seed=st.integers(0, 99))
def test_permuting_the_table_permutes_the_rows(table, seed):
    table = np.array(table, np.int64)
    order = np.random.default_rng(seed).permutation(len(table))
    assert np.array_equal(order[rows_of(table, table[order])], np.arange(len(table)))


def test_the_shape_of_the_question_is_the_shape_of_the_answer():
    table = np.array([7, 3, 9])
    assert rows_of(np.array([[3, 9], [7, 1]]), table).tolist() == [[1, 2], [0, ABSENT]]
    assert rows_of(np.zeros((0, 2), np.int64), table).shape == (0, 2)
    assert rows_of(np.array([[1]]), np.zeros(0, np.int64)).tolist() == [[ABSENT]]
