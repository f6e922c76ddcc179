"""How a trainer starts: it waits for a database that is away, or that is not migrated yet."""

from __future__ import annotations

import pytest

from copl_core.records import CoplError, NotMigrated, StoreUnavailable
from copl_core.trainer import service


def test_a_trainer_waits_for_its_database_and_says_once_for_what(monkeypatch, caplog):
    """A supervisor gives up a program that ends at once again and again, and would never start it when all is well."""
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.0)
    away, old, store = StoreUnavailable("It does not answer."), NotMigrated("It is older."), object()
    answers = iter([away, away, old, old, store])

    def opened() -> object:
        answer = next(answers)
        if isinstance(answer, CoplError):
            raise answer
        return answer

    assert service.wait_for_migration(opened) is store
    waits = ["the trainer waits: It does not answer.", "the trainer waits: It is older."]
    assert [record.getMessage() for record in caplog.records] == waits


def test_a_trainer_ends_where_waiting_does_not_help():
    def opened() -> object:
        raise CoplError("The password is wrong.")

    with pytest.raises(CoplError, match="password"):
        service.wait_for_migration(opened)
