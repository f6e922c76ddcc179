"""Weights of labels that use a response of their person again."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.graph_quality import weighed_by_uses
from copl_core.records import Comparisons


def test_a_label_weighs_less_the_more_its_person_uses_its_responses():
    labels = Comparisons.build([0, 0, 0, 1, 1], [0, 1, 4, 0, 2], [1, 2, 5, 1, 3], np.ones(5))
    found = weighed_by_uses(labels).strength
    assert found.mean() == pytest.approx(1) and found / found[2] == pytest.approx([0.5, 0.5, 1, 1, 1])
