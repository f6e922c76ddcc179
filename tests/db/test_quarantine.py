"""Accounts that are left out until somebody decides: their labels stay, train nothing, and are marked in exports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from copl_core.records import Choice, CoplError, Ground, ImportRow, Kind, Role
from copl_core.study_settings import AssignmentSettings

FAST = Ground("fast", "Answered faster than one can read in 20 of 20.")
GOLD = Ground("gold", "Gave the known answer in 0 of 10.")


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
    assert store.quarantine(ben.id, [FAST, GOLD])
    assert store.quarantines(study.id)[0].grounds == (FAST, GOLD) and store.quarantines(study.id)[0].since == one.since
    assert not store.decide_quarantine(ben.id, True, by=ann.id).quarantined
    assert store.label_count(study.id) == 1
    assert not store.quarantine(ben.id, [FAST, GOLD]), "an owner has decided"
    with pytest.raises(CoplError, match="does not wait for a decision any more"):
        store.decide_quarantine(ben.id, False)
    events = [(entry.event, entry.user_id) for entry in store.audit(study.id)]
    assert events[:3] == [("quarantine decided", ann.id), ("quarantine", None), ("quarantine", None)]


def test_who_is_left_out_by_decision_is_excluded_and_may_be_included_again(store, study, answer, four_pairs, ann, ben):
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    decided = store.decide_quarantine(ben.id, False, by=ann.id)
    assert decided.excluded and not decided.quarantined and store.quarantines(study.id)[0].decided == "left out"
    assert not store.quarantine(ben.id, [GOLD]), "somebody who is excluded does not wait"
    store.exclude(ben.id, False, by=ann.id)
    assert store.user(ben.id).trained and store.quarantines(study.id)[0].decided == "counted"
    assert not store.quarantine(ben.id, [GOLD])


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


def test_what_nobody_learns_from_raises_no_revision(store, study, answer, four_pairs, ann, ben):
    """Neither do labels of people who are left out, nor do moves between the two ways of leaving somebody out."""
    label = answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    before, state = store.revision(study.id), store.answers_state(study.id)
    store.edit(label.id, ben.id, Choice.RIGHT)
    assert store.answers_state(study.id) != state, "figures of the person are computed again"
    answer(ben.id, four_pairs[1][0], Choice.LEFT)
    store.undo(ben.id)
    store.exclude(ben.id, True)
    answer(ben.id, four_pairs[2][0], Choice.LEFT)
    assert store.revision(study.id) == before
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    assert store.revision(study.id) == before + 1
    store.exclude(ben.id, False)
    assert store.revision(study.id) == before + 3, "both of their labels are learned"
    store.quarantine(ann.id, [FAST])
    before = store.revision(study.id)
    store.decide_quarantine(ann.id, False)
    assert store.revision(study.id) == before


def test_who_becomes_an_owner_waits_no_longer(store, study, answer, four_pairs, ann, ben):
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(ben.id, [FAST])
    before = store.revision(study.id)
    store.set_role(ben.id, Role.RESEARCHER, by=ann.id)
    assert store.user(ben.id).quarantined
    assert store.set_role(ben.id, Role.OWNER, by=ann.id).trained and store.revision(study.id) == before + 1
    assert [one.decided for one in store.quarantines(study.id)] == ["promoted"]
    entry = store.audit(study.id)[0]
    assert (entry.event, entry.user_id, entry.detail["labels"]) == ("quarantine ended", ann.id, 1)
    assert not store.quarantine(ben.id, [FAST])
    store.set_role(ann.id, Role.OWNER)
    store.set_role(ben.id, Role.ANNOTATOR)
    assert store.quarantine(ben.id, [FAST]), "that was no decision about their labels"


def test_the_record_counts_the_labels_of_a_newcomer_who_waits(store, study, answer, four_pairs):
    store.set_assignment(study.id, AssignmentSettings(quarantine="new"))
    late = store.join(study.id, "Late", "token")
    assert store.audit(study.id)[0].event == "quarantine" and store.audit(study.id)[0].detail["new"]
    answer(late.id, four_pairs[0][0], Choice.LEFT)
    store.quarantine(late.id, [FAST])
    assert store.audit(study.id)[0].detail["labels"] == 1
