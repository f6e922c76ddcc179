"""The most different pairs: how many are kept, in which order, and what an export leaves out for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl_core.formats.diversity import farthest_first
from copl_core.formats.selection import Selection, select
from copl_core.records import CoplError

points = st.lists(st.tuples(*[st.integers(-9, 9)] * 3), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(points, st.integers(0, 14), st.randoms(use_true_random=False))
def test_exactly_n_are_kept_each_once_and_the_same_ones_again(rows, n, random):
    vectors, margins = np.array(rows, float), np.array([random.choice([0, 1, 2, 3]) for _ in rows])
    kept = farthest_first(vectors, margins, n)
    assert len(kept) == len(set(kept.tolist())) == min(n, len(rows))
    assert (farthest_first(vectors, margins, n) == kept).all()
    assert (farthest_first(vectors, margins, len(rows))[: len(kept)] == kept).all()  # a larger n keeps more, not others


@settings(max_examples=60, deadline=None)
@given(points)
def test_a_text_that_equals_a_kept_one_comes_after_every_other_text(rows):
    kept = farthest_first(np.array(rows, float), np.ones(len(rows)), len(rows))
    different = len(set(rows))
    assert len({rows[index] for index in kept[:different].tolist()}) == different


@settings(max_examples=60, deadline=None)
@given(points)
def test_no_text_is_farther_from_the_kept_ones_than_the_one_that_is_kept_next(rows):
    vectors = np.array(rows, float)
    scaled = (vectors - vectors.mean(0)) / np.where(vectors.std(0) > 0, vectors.std(0), np.inf)
    kept = farthest_first(vectors, np.ones(len(rows)), len(rows)).tolist()
    distance = np.linalg.norm(scaled[:, None] - scaled, axis=2)  # (M, M)
    for n in range(1, len(rows)):
        nearest = distance[:, kept[:n]].min(axis=1)
        assert nearest[kept[n]] == pytest.approx(nearest.max(), abs=1e-3)


def test_texts_that_are_nearly_equal_are_kept_once_each():
    vectors = np.array([[0.0], [1.0], [1.000001], [-1.0]])
    assert sorted(farthest_first(vectors, np.ones(4), 4).tolist()) == [0, 1, 2, 3]


def test_distance_counts_before_margin_and_margin_before_age():
    vectors = np.array([[0.0], [10.0], [0.1], [0.1], [10.0]])
    assert farthest_first(vectors, np.array([1, 1, 1, 3, 2]), 3).tolist() == [4, 0, 3]
    assert farthest_first(vectors, np.array([3, 1, 1, 1, 1]), 3).tolist() == [1, 0, 2]


def test_a_column_in_large_units_or_without_variance_counts_no_more_than_another():
    vectors = np.array([[0.0, 0.0, 7.0], [1000.0, 0.0, 7.0], [500.0, 1.0, 7.0], [500.0, 0.0, 7.0]])
    scaled = vectors * [0.001, 1, 1]
    assert (farthest_first(vectors, np.ones(4), 4) == farthest_first(scaled, np.ones(4), 4)).all()
    assert 2 in farthest_first(vectors, np.ones(4), 2)


def labels(*prompts: str) -> list[dict]:
    """Two labels of each pair, one pair per prompt; the first person is more decided."""
    rows = []
    for pair, prompt in enumerate(prompts):
        for annotator, strength in (("Ann", 2), ("Ben", 1)):
            texts = {"prompt": prompt, "response_a": "x", "response_b": "y", "model_a": None, "model_b": None}
            label = {"choice": "a", "annotator": annotator, "strength": strength, "study": "S", "pair": pair}
            rows.append(texts | label)
    return rows


def by_length(rows) -> np.ndarray:
    return np.array([[float(len(row["prompt"]))] for row in rows])


def test_an_export_keeps_all_labels_of_the_pairs_that_differ_and_counts_the_others():
    rows = labels("a", "a b c d e", "b", "a" * 30)
    found = select(rows, Selection(diverse=2), by_length)
    assert [row["pair"] for row in found.rows] == [0, 0, 3, 3]
    assert found.left_out == {"about pairs too like others": 4}
    shares = select(rows, Selection(diverse=0.5, shares=True), by_length)
    assert len(shares.rows) == 2 and shares.left_out == {"pairs too like others": 2}
    assert select(rows, Selection(diverse=4)).left_out == {}  # nothing to compare
    strong = select(rows, Selection(diverse=4, min_margin=2), by_length)
    assert strong.left_out == {"below the margin": 4} and len(strong.rows) == 4


@pytest.mark.parametrize("diverse", [0, -1, 1.5, float("nan")])
def test_neither_a_number_nor_a_share_of_pairs_is_refused(diverse):
    with pytest.raises(CoplError, match="give a whole number of pairs, or a share below 1"):
        Selection(diverse=diverse)
    with pytest.raises(CoplError, match="nothing embeds their texts"):
        select(labels("a", "b"), Selection(diverse=1))
