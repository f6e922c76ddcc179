"""Fixtures of the verbs: a small study without labels, and one with two camps and a snapshot."""

from __future__ import annotations

import pytest

from copl_core.study import contents
from copl_core.study.session import Session
from tests.worlds import open_study, pairs_to_label, two_camps
from tests.worlds import trained as trained_world


@pytest.fixture
def untrained(tmp_path) -> Session:
    """Twelve pairs and nobody's label."""
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(12))
    return session


@pytest.fixture
def trained(tmp_path_factory, tmp_path) -> Session:
    """Two camps and a first snapshot of them."""
    return trained_world(two_camps, tmp_path_factory, tmp_path / "home")
