"""Labels between two texts that a second fit has not seen."""

from __future__ import annotations

import numpy as np

from benchmarks.mix import without_some
from tests.preference.camps import camps


def test_neither_text_of_a_test_label_is_in_a_learned_label():
    data = camps(n_users=60, n_prompts=40, per_user=30)
    learned, both = without_some(data)
    seen = np.union1d(learned.labels.left, learned.labels.right)
    tested = np.union1d(both.left, both.right)
    assert len(both) and len(learned.labels) and not np.isin(tested, seen).any()
    assert 0.4 < len(learned.labels) / len(data.labels) < 0.75
