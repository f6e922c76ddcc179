from __future__ import annotations

import pytest

from copl_core.records import CoplError
from copl_core.study_settings import ServiceRole


def test_a_token_is_found_by_its_hash_until_it_is_revoked(store, study, ann):
    made = store.add_service_token(study.id, "hash 1", " Trainer ", ServiceRole.PEOPLE, 60, by=ann.id)
    other = store.add_service_token(study.id, "hash 2", "Page", ServiceRole.REWARDS, 5)
    assert (made.name, made.role, made.per_minute, made.by, made.study_id) == (
        "Trainer",
        "people",
        60,
        ann.id,
        study.id,
    )
    assert store.service_token("hash 1") == made and store.service_token("hash 2") == other
    assert store.service_token("hash 3") is None and store.service_tokens(study.id) == [other, made]
    revoked = store.revoke_service_token(study.id, made.id, by=ann.id)
    assert revoked.revoked_at is not None and store.service_token("hash 1") is None
    assert store.revoke_service_token(study.id, made.id) == revoked  # once
    assert [entry.event for entry in store.audit(study.id)][:3] == ["service token revoked"] + ["service token"] * 2


def test_a_name_is_free_again_once_its_token_is_revoked_and_in_other_studies(store, study):
    made = store.add_service_token(study.id, "hash 1", "Trainer", ServiceRole.REWARDS, 60)
    elsewhere = store.create_study("Trees")
    store.add_service_token(elsewhere.id, "hash 2", "Trainer", ServiceRole.REWARDS, 60)
    with pytest.raises(CoplError, match="in use; revoke it"):
        store.add_service_token(study.id, "hash 3", "Trainer", ServiceRole.REWARDS, 60)
    with pytest.raises(CoplError, match="no token with id"):
        store.revoke_service_token(elsewhere.id, made.id)
    store.revoke_service_token(study.id, made.id)
    assert store.add_service_token(study.id, "hash 4", "Trainer", ServiceRole.REWARDS, 60).name == "Trainer"


@pytest.mark.parametrize("per_minute", [0, -1, 1_000_001])
def test_a_token_allows_some_requests(store, study, per_minute):
    with pytest.raises(CoplError, match="requests a minute; give 1 to 1,000,000"):
        store.add_service_token(study.id, "hash", "Trainer", ServiceRole.REWARDS, per_minute)
    assert store.service_tokens(study.id) == []
