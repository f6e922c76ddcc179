"""The memory of a person's labelled texts knows nothing of the label that it predicts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.memory import SHRINK, memories
from benchmarks.text_reward import ROWS
from copl_core.records import Comparisons


def labels_of(seed: int) -> tuple[Comparisons, np.ndarray]:
    rng = np.random.default_rng(seed)
    ends = np.array([rng.choice(12, 2, replace=False) for _ in range(50)])
    labels = Comparisons.build(rng.integers(0, 4, 50), *ends.T, rng.choice([0.0, 0.5, 1.0], 50))
    return labels, rng.normal(size=(50, 3))


@pytest.mark.parametrize("seed", range(3))
def test_a_memory_is_the_sum_over_the_other_labels_that_share_no_response(seed):
    labels, steps = labels_of(seed)
    found = memories(labels, steps)
    for i in range(50):
        others = [
            j
            for j in range(50)
            if labels.user[j] == labels.user[i]
            and {labels.left[j], labels.right[j]}.isdisjoint({labels.left[i], labels.right[i]})
        ]
        assert found[i] == pytest.approx(steps[others].sum(0) / np.sqrt(len(others) + SHRINK))


def test_a_memory_changes_with_no_label_about_its_own_responses():
    labels, steps = labels_of(0)
    found, shared = memories(labels, steps), np.isin(labels.left, [labels.left[7], labels.right[7]])
    shared |= np.isin(labels.right, [labels.left[7], labels.right[7]])
    changed = np.where(shared[:, None], 9.0, steps)
    assert memories(labels, changed)[7] == pytest.approx(found[7])
    assert not np.allclose(memories(labels, changed), found)


def test_every_row_of_the_table_can_be_named_on_the_command_line():
    assert ",".join(ROWS).split(",") == list(ROWS)
