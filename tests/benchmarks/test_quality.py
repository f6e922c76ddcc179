"""The random columns of ``benchmarks.quality`` hold out labels by (person, response)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import TEST, TRAIN, controls, parts_of, random_labels
from copl_core.records import Choice, ImportRow

PEOPLE, PROMPTS = 40, 12


def rated(n_people: int = PEOPLE) -> list[dict]:
    """Each person rates five answers to some prompts, which makes ten labels a prompt: a ≻ b follows from a ≻ c ≻ b."""
    return [
        {
            "prompt": f"Why {prompt}?",
            "response_a": f"{i}",
            "response_b": f"{j}",
            "choice": "a",
            "annotator": f"{person}",
        }
        for person in range(n_people)
        for prompt in range(PROMPTS)
        if (person + prompt) % 3 == 0
        for i in range(5)
        for j in range(i)
    ]


def seen(rows: list[dict], part: np.ndarray, wanted: int) -> set[tuple[str, str, str]]:
    return {
        (row["annotator"], row["prompt"], row[side])
        for row, own in zip(rows, part, strict=True)
        if own == wanted
        for side in ("response_a", "response_b")
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_response_of_a_test_label_is_in_a_training_label_of_the_same_person(seed):
    rows = rated()
    part = random_labels(rows, seed)
    trained, tested = seen(rows, part, TRAIN), seen(rows, part, TEST)
    assert trained and tested and not trained & tested
    others = {(prompt, response) for _, prompt, response in trained}
    assert {(prompt, response) for _, prompt, response in tested} <= others, "other people have labelled the responses"


def test_each_seed_draws_other_labels_and_their_order_changes_nothing():
    rows = rated()
    first, second = random_labels(rows, 1), random_labels(rows, 2)
    assert (first != second).any()
    order = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(random_labels([rows[i] for i in order], 1), first[order])


def test_where_a_person_sees_each_response_once_every_label_is_learned_or_tested():
    rows = [ImportRow(i, f"Why {i}?", "a", "b", Choice.LEFT, f"person {i % 9}") for i in range(900)]
    part = parts_of(rows, 0.15, 1)
    assert set(part.tolist()) == {TRAIN, TEST}
    assert abs((part == TEST).mean() - 0.15) < 0.04


def test_the_controls_are_means_over_the_splits_and_nothing_where_none_ran():
    def row(gain: float, turned: float) -> dict:
        return {
            "user_swap": {"gain": gain, "gain_own": 0.1},
            "label_flip": {"accuracy": 0.2, "mirror": 0.25},
            "fold_in_flip": {"turned": turned, "accuracy": 0.8, "accuracy_flipped": 0.3},
        }

    swapped, reversed_ = controls("copl", [row(0.01, 0.4), row(0.03, 0.6)])
    assert "+2.0 points over global (own +10.0)" in swapped and "0.200, one minus its accuracy 0.250" in swapped
    assert "50% of the predictions about other answers turn, accuracy 0.800 to 0.300" in reversed_
    assert len(controls("copl", [row(0.01, 0.4) | {"fold_in_flip": None}])) == 1
    assert controls("copl", [{"accuracy": 0.5}]) == []
