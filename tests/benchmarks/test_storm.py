"""A small labelling storm; ``python -m benchmarks.labelling_storm`` is the full one."""

from __future__ import annotations

import pytest

from benchmarks.labelling_storm import storm


@pytest.mark.slow
def test_killed_processes_lose_no_label_double_none_and_leave_no_pair_behind(tmp_path):
    outcome = storm(tmp_path, processes=3, labels=25, kills=2, seed=1)
    assert outcome.acknowledged >= 3 * 25 - outcome.kills and outcome.kills > 0
    assert (outcome.lost, outcome.double, outcome.over, outcome.unacknowledged, outcome.stuck, outcome.broken) == (
        0,
    ) * 6
