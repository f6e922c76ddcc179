"""Accounts at identity providers, on both databases: one person for one account, however many come at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from copl_core.records import Identity, Role
from db.engine import reading
from db.identity_models import IdentityRow, IdentityUserRow

ANN = Identity("https://id.example", "ann", "ann@example.org", "Ann")


def test_one_account_in_many_windows_is_one_account_and_one_user(store, fresh_study):
    study = fresh_study()
    store.set_email(study.id, ANN.address, Role.RESEARCHER)

    def visit(n: int):
        store.start_identity_session(ANN, f"window {study.id} {n}")
        return store.admit(f"window {study.id} {n}", study.id)

    with ThreadPoolExecutor(6) as pool:
        users = list(pool.map(visit, range(12)))
    assert len({user.id for user in users}) == 1 and users == [store.users(study.id)[0]] * 12
    with reading(store.engine) as connection:
        assert connection.execute(select(func.count()).select_from(IdentityRow)).scalar_one() == 1


def test_a_person_who_leaves_takes_the_account_along(store, fresh_study):
    study, other = fresh_study(), fresh_study()
    ben = Identity("https://id.example", "ben", "ben@example.org", "Ben")
    for one in (study, other):
        store.create_user(one.id, "Olga", role=Role.OWNER)
        store.set_email(one.id, ben.address, Role.ANNOTATOR)
    store.start_identity_session(ben, "browser of Ben")
    here, there = (store.admit("browser of Ben", one.id) for one in (study, other))
    store.forget_user(here.id, fewest={"graph": 10, "full": 40})
    assert store.browser_session("browser of Ben") is None
    assert store.identities_of(there.id) == [ben]  # still somebody in the other study
    store.forget_user(there.id, fewest={"graph": 10, "full": 40})
    with reading(store.engine) as connection:
        subjects = connection.execute(select(IdentityRow.subject)).scalars().all()
        assert "ben" not in subjects
        assert not connection.execute(
            select(IdentityUserRow).where(IdentityUserRow.user_id.in_([here.id, there.id]))
        ).all()
