"""A user's embedding and map position by their present labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.records import Choice, Comparisons
from copl_core.snapshots.snapshot import Snapshot, write_snapshot
from copl_core.study import placement, rewards
from copl_core.tags import tag_key
from tests.worlds import graph_state, label, layout_of

ANN, BEN, NEWCOMER = 5, 15, 9999  # the first two users of the state, and one it does not know


@pytest.fixture
def state():
    """Ann and Ben stand apart; both have labelled the pair 100 / 101, and answered differently."""
    made = graph_state(n_users=2)
    labels = Comparisons.build([0, 0, 1, 1], [0, 2, 0, 4], [1, 3, 1, 5], [1, 0, 0, 0.5])
    vectors = np.array([[3, 0, 0, 0], [-3, 0, 0, 0]], np.float32)
    responses = np.zeros((8, 4), np.float32)
    responses[0, 0] = 1  # Ann likes response 100, Ben does not
    return replace(made, labels=labels, user_vectors=vectors, response_vectors=responses, n_labels=np.array([2, 2]))


@pytest.fixture
def snapshot(state, tmp_path) -> Snapshot:
    return write_snapshot(tmp_path, "v0001", graph=state, layout=layout_of(state), manifest={"watermark": 4})


def ann_labels() -> list:
    return [label(100, 101, Choice.LEFT), label(102, 103, Choice.RIGHT)]


def test_labels_on_texts_that_the_graph_does_not_know_are_skipped(state):
    found = placement.comparisons(
        state, [label(100, 900), label(101, 100, Choice.TIE), label(103, 107, Choice.BOTH_BAD)]
    )
    assert found.left.tolist() == [1, 3] and found.right.tolist() == [0, 7]
    assert found.outcome.tolist() == [0.5, 0.5] and found.both_bad.tolist() == [False, True]
    assert len(placement.comparisons(state, [])) == 0


def test_tags_stay_with_the_labels_that_are_compared(state):
    given = [label(100, 900), label(101, 100), label(103, 107, Choice.TIE)]
    given = [replace(one, tags=words) for one, words in zip(given, (("a",), (), ("b", "c")), strict=True)]
    found = placement.tags(state, given)
    assert found.label.tolist() == [1, 1] and found.key.tolist() == [tag_key("b"), tag_key("c")]
    assert len(placement.tags(state, [])) == 0


def test_a_user_has_the_trained_row_while_their_labels_are_those_of_the_fit(state):
    vector, source, _ = placement.vector(state, ANN, ann_labels()[::-1])  # in whatever order
    assert source == "trained" and np.array_equal(vector, state.user_vectors[0])


@pytest.mark.parametrize(
    "change", ["one more", "one taken back", "one answered the other way", "sides and answer", "strength alone"]
)
def test_a_changed_label_leaves_the_trained_row(state, change):
    labels = {
        "one more": [*ann_labels(), label(104, 105)],
        "one taken back": ann_labels()[:1],
        "one answered the other way": [label(100, 101, Choice.RIGHT), ann_labels()[1]],
        "sides and answer": [label(101, 100, Choice.LEFT), ann_labels()[1]],
        "strength alone": [replace(ann_labels()[0], strength=3), ann_labels()[1]],
    }[change]
    assert placement.vector(state, ANN, labels)[1] == "neighbours"


def test_a_row_fitted_to_strong_labels_is_kept_while_they_are_as_strong(state):
    strong = replace(state, labels=replace(state.labels, strength=np.array([3, 1, 1, 1], np.float32)))
    labels = [replace(ann_labels()[0], strength=3), ann_labels()[1]]
    assert placement.vector(strong, ANN, labels)[1] == "trained"
    assert placement.vector(strong, ANN, ann_labels())[1] == "neighbours"


def test_a_newcomer_starts_at_the_population_mean_and_moves_towards_users_who_answer_alike(snapshot):
    state = snapshot.graph
    start = placement.position_in(snapshot, NEWCOMER, [])
    assert (start.source, start.xy, start.group, start.n_labels, start.neighbours) == (
        "population mean",
        None,
        None,
        0,
        (),
    )
    assert np.allclose(start.vector, state.user_vectors.mean(0))
    like_ann = placement.position_in(snapshot, NEWCOMER, [label(100, 101, Choice.LEFT)])
    like_ben = placement.position_in(snapshot, NEWCOMER, [label(100, 101, Choice.RIGHT)])
    assert like_ann.source == like_ben.source == "neighbours"
    assert like_ann.vector[0] > start.vector[0] > like_ben.vector[0]
    assert (like_ann.group, like_ben.group) == (0, 1)
    assert like_ann.neighbours[0][0] == ANN and like_ben.neighbours[0][0] == BEN
    assert 0.5 < like_ann.group_share <= 1 and 0 < like_ann.group_probability < like_ann.group_share
    assert start.group_probability == 0 and not like_ann.clear  # one label is not enough
    assert like_ann.spread < start.spread


def test_swapping_sides_and_answer_gives_the_same_position(snapshot):
    one = placement.position_in(snapshot, NEWCOMER, [label(100, 101, Choice.LEFT)])
    other = placement.position_in(snapshot, NEWCOMER, [label(101, 100, Choice.RIGHT)])
    assert dict(one.neighbours) == pytest.approx(dict(other.neighbours)) and one.group == other.group
    assert one.xy == pytest.approx(other.xy)


def test_trained_users_have_their_map_position_and_are_not_their_own_neighbours(snapshot):
    found = placement.position_in(snapshot, ANN, ann_labels())
    assert (found.source, found.xy, found.group) == ("trained", (0.0, 0.0), 0)
    assert found.n_neighbours == 1 and [user for user, _ in found.neighbours] == [BEN]


def test_a_user_whose_texts_nobody_else_labelled_has_no_map_position(snapshot):
    found = placement.position_in(snapshot, NEWCOMER, [label(106, 107)])
    assert (found.source, found.xy, found.group) == ("population mean", None, None)


def test_preferences_are_even_for_equal_responses_and_finite_at_any_margin(state):
    rows = np.array([[2, 3], [0, 1], [1, 0]])
    p = placement.preferences(state, state.user_vectors * 1e6, rows)
    assert p[:, 0].tolist() == [0.5, 0.5]
    assert np.allclose(p[:, 1], [1, 0]) and np.allclose(p[:, 1] + p[:, 2], 1)


def test_answers_that_are_tried_out_teach_no_preference_for_the_left(state):
    """They are kept with the preferred response first."""
    biased = replace(state, position_bias=2.0, user_position_bias=np.array([-3, 3], np.float32))
    first = rewards._labels([(100, 101), (103, 102), (104, 105)], biased)
    turned = [replace(one, left_id=one.right_id, right_id=one.left_id, choice=Choice.RIGHT) for one in first]
    one, other = (placement.adapted(biased, labels).vector for labels in (first, turned))
    np.testing.assert_allclose(one, other, atol=1e-5)
