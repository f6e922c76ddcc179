"""A world that is fitted once serves every test that names it."""

from __future__ import annotations

import pytest

from copl_core.trainer.job import Job
from tests.preference.camps import QUICK
from tests.trainer.conftest import quick_three_people
from tests.worlds import three_people, trained


def test_no_world_is_shared_with_a_graph_that_other_tests_do_not_expect(tmp_path_factory, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="graph_config is not replaced where quick_three_people is fitted"):
        trained(quick_three_people, tmp_path_factory, tmp_path / "home")
    monkeypatch.setattr(Job, "graph_config", lambda job, kind: QUICK)
    with pytest.raises(ValueError, match="graph_config is replaced where three_people is fitted once for all tests"):
        trained(three_people, tmp_path_factory, tmp_path / "home")
