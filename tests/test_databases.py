"""The private server that tests start."""

from __future__ import annotations

import pytest

from tests import databases
from tests.databases import postgres_or_skip, private_cluster


def test_where_there_is_no_server_the_test_is_skipped_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(databases, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="apt install postgresql"), postgres_or_skip(), private_cluster():
        pass


def test_a_server_that_does_not_come_back_skips_nothing(monkeypatch):
    with postgres_or_skip(), private_cluster() as cluster:
        (cluster.folder / "data" / "PG_VERSION").unlink()
        monkeypatch.setattr(databases, "START_SECONDS", 0.0)
        with pytest.raises(RuntimeError, match="does not answer"):
            cluster.restart()
