"""Accounts that are left out until somebody decides: their labels stay, train nothing, and are marked in exports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from copl_core.records import Choice, CoplError, Ground, ImportRow, Kind, Role
from copl_core.study_settings import AssignmentSettings

FAST = Ground("fast", "Answered faster than one can read in 20 of 20.")
ALIKE = Ground("alike", "Other accounts forecast 400 of 400 answers.")


def test_a_quarantined_person_trains_nothing_and_votes_nowhere_and_no_label_is_lost(
    store, study, answer, four_pairs, ann, ben
):
    mine, theirs = (answer(user.id, four_pairs[0][0], Choice.LEFT) for user in (ann, ben))
    before = store.revision(study.id)
    assert store.quarantine(ben.id, [FAST]) and store.user(ben.id).quarantined and not store.user(ben.id).excluded
    assert store.revision(study.id) == before + 1
    assert len(store.training_data(study.id).labels) == 1 == store.label_count(study.id)
    assert store.votes(four_pairs[0][0], excluding=0) == (1, 0)
    assert store.labels(study.id) == [mine] and store.labels(study.id, user_id=ben.id) == [theirs]
    assert [row["quarantined"] for row in store.export(study.id)] == [False, True]
    assert len(store.answers(study.id)) == 2


def test_an_owner_is_told_why_and_decides_for_good(store, study, answer, four_pairs, ann, ben):
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    (one,) = store.quarantines(study.id)
    assert (one.user, one.grounds, one.labels, one.decided) == (store.user(ben.id), (FAST,), 1, "")
    assert not store.quarantine(ben.id, [FAST])  # that is known
    assert store.quarantine(ben.id, [FAST, ALIKE])
    assert store.quarantines(study.id)[0].grounds == (FAST, ALIKE) and store.quarantines(study.id)[0].since == one.since
    assert not store.decide_quarantine(ben.id, True, by=ann.id).quarantined
    assert store.label_count(study.id) == 1
    assert not store.quarantine(ben.id, [FAST, ALIKE]), "an owner has decided"
    with pytest.raises(CoplError, match="does not wait for a decision any more"):
        store.decide_quarantine(ben.id, False)
    events = [(entry.event, entry.user_id) for entry in store.audit(study.id)]
    assert events[:3] == [("quarantine decided", ann.id), ("quarantine", None), ("quarantine", None)]


def test_who_is_left_out_by_decision_is_excluded_and_may_be_included_again(store, study, answer, four_pairs, ann, ben):
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    decided = store.decide_quarantine(ben.id, False, by=ann.id)
    assert decided.excluded and not decided.quarantined and store.quarantines(study.id)[0].decided == "left out"
    assert not store.quarantine(ben.id, [ALIKE]), "somebody who is excluded does not wait"
    store.exclude(ben.id, False, by=ann.id)
    assert store.user(ben.id).trained and store.quarantines(study.id)[0].decided == "counted"
    assert not store.quarantine(ben.id, [ALIKE])


def test_owners_simulated_people_and_language_models_are_never_quarantined(store, study):
    for number, (kind, role) in enumerate(
        [(Kind.HUMAN, Role.OWNER), (Kind.SIMULATED, Role.ANNOTATOR), (Kind.MODEL, Role.ANNOTATOR)]
    ):
        assert not store.quarantine(store.create_user(study.id, f"u{number}", kind=kind, role=role).id, [FAST])
    assert store.quarantines(study.id) == []


def test_the_slot_of_a_quarantined_person_is_free_for_somebody_else(store, study, answer, four_pairs, ann, ben):
    store.set_assignment(study.id, AssignmentSettings(overlap=1, order="imported", repeats=0, gold=0))
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    taken = four_pairs[0][0]
    assert taken not in [pair for pair, _, _ in store.available_pairs(ann.id).pairs]
    store.quarantine(ben.id, [FAST])
    assert taken in [pair for pair, _, _ in store.available_pairs(ann.id).pairs]


def test_new_accounts_wait_only_where_the_study_says_so(store, study):
    assert not store.join(study.id, "Early", "token 1").quarantined
    store.set_assignment(study.id, AssignmentSettings(quarantine="new"))
    late = store.join(study.id, "Late", "token 2")
    assert late.quarantined and store.quarantines(study.id)[0].grounds[0].kind == "new"
    assert store.end_quarantine(late.id) and store.user(late.id).trained and not store.end_quarantine(late.id)
    assert store.quarantine(late.id, [FAST]), "it has shown itself, and nobody has decided"
    with pytest.raises(CoplError, match="The quarantine is 'all'"):
        AssignmentSettings(quarantine="all")


def test_a_quarantined_person_who_leaves_leaves_no_reason_behind(store, study, answer, four_pairs, ann, ben):
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    assert store.stored_of(ben.id)["person"]["quarantine"]["grounds"][0]["kind"] == "fast"
    store.forget_user(ben.id, fewest={"graph": 1, "full": 1})
    assert store.quarantines(study.id) == []


def test_labels_of_a_quarantined_person_come_back_as_excluded_with_a_file(store, study, answer, four_pairs, ben):
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    (row,) = store.export(study.id)
    there = store.create_study("Again")
    read = ImportRow(1, row["prompt"], row["response_a"], row["response_b"], Choice.LEFT, row["annotator"], key="k")
    store.import_rows(there.id, [replace(read, excluded=row["quarantined"])])
    assert store.user_named(there.id, row["annotator"]).excluded and store.label_count(there.id) == 0
