from __future__ import annotations

import pytest

from copl_core.preference.state import GraphState
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, camp_phi, camps


@pytest.fixture(scope="session")
def two_camps() -> GraphState:
    """A fitted graph of twenty users in two camps."""
    return fit_graph(camps(), camp_phi(), QUICK, seed=0)
