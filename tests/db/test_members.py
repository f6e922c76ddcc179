from __future__ import annotations

from datetime import timedelta

import pytest

from copl_core.records import Choice, CoplError, ImportRow, Kind, Role

WEEK = timedelta(days=7)


def test_a_study_is_made_once_and_the_first_becomes_current(store):
    assert store.current_study() is None
    birds = store.create_study("Birds")
    trees = store.create_study(" Trees ", demo=True)
    assert (trees.name, trees.demo, trees.include_simulated, trees.revision) == ("Trees", True, True, 0)
    assert store.create_study("Birds") == birds
    assert store.current_study() == birds
    store.make_current(birds.id)
    assert store.current_study() == store.study(birds.id) == birds
    assert store.studies() == [birds, trees]


def test_a_user_is_found_again_by_name_and_as_they_were_made(store, study):
    ann = store.create_user(study.id, "Ann", role=Role.RESEARCHER)
    assert store.create_user(study.id, " Ann ", kind=Kind.SIMULATED) == store.user(ann.id) == ann
    assert ann.kind is Kind.HUMAN and ann.role is Role.RESEARCHER
    elsewhere = store.create_user(store.create_study("Trees").id, "Ann")
    assert elsewhere.id != ann.id
    assert store.users(study.id) == [ann]


@pytest.mark.parametrize("name", ["", "  ", "x" * 201])
def test_nobody_and_nothing_goes_without_a_name(store, study, name):
    with pytest.raises(CoplError, match="give it 1 to 200"):
        store.create_user(study.id, name)
    with pytest.raises(CoplError, match="give it 1 to 200"):
        store.create_study(name)


def test_a_token_signs_one_user_into_their_study(store, study):
    ann, ben = (store.create_user(study.id, name) for name in ("Ann", "Ben"))
    store.add_token(ann.id, "hash of a secret", lasts=WEEK)
    store.add_token(ann.id, "hash of a secret", lasts=WEEK)
    assert store.user_by_token(study.id, "hash of a secret") == ann
    assert store.user_by_token(study.id, "another hash") is None
    assert store.user_by_token(store.create_study("Trees").id, "hash of a secret") is None
    with pytest.raises(CoplError, match="another user"):
        store.add_token(ben.id, "hash of a secret", lasts=WEEK)


def test_changes_leave_a_trail_of_who_did_what_newest_first(store, study):
    owner = store.create_user(study.id, "Olga", role=Role.OWNER)
    ann = store.create_user(study.id, "Ann")
    store.set_role(ann.id, Role.RESEARCHER, by=owner.id)
    store.set_role(ann.id, Role.RESEARCHER, by=owner.id)
    store.include_simulated(study.id, False, by=owner.id)
    trail = store.audit(study.id)
    assert [(entry.event, entry.user_id) for entry in trail] == [
        ("simulated", owner.id),
        ("role", owner.id),
    ]
    assert trail[1].detail == {"user": ann.id, "before": "annotator", "after": "researcher"}
    assert store.audit(study.id, limit=1) == trail[:1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.study(99),
        lambda store: store.user(99),
        lambda store: store.pair(99),
        lambda store: store.run(99),
        lambda store: store.study_of_run(99),
        lambda store: store.users(99),
        lambda store: store.make_current(99),
        lambda store: store.progress(99),
        lambda store: store.training_data(99),
        lambda store: store.create_user(99, "Ann"),
        lambda store: store.add_run(99, "graph", ""),
        lambda store: store.import_rows(99, []),
        lambda store: store.undo(99),
    ],
)
def test_what_is_not_there_is_reported(store, study, ask):
    with pytest.raises(CoplError, match="no .* with id 99"):
        ask(store)


def test_language_models_are_listed_and_stay_out_of_training_until_somebody_includes_them(store, study):
    rows = [
        ImportRow(1, "Name a bird", "Robin", "Wren", Choice.LEFT, "Ann", key="1"),
        ImportRow(2, "Name a bird", "Robin", "Wren", Choice.RIGHT, "gpt-4", key="2", kind=Kind.MODEL),
    ]
    store.import_rows(study.id, rows)
    assert {user.name: user.kind for user in store.users(study.id)} == {"Ann": Kind.HUMAN, "gpt-4": Kind.MODEL}
    judge = next(user.id for user in store.users(study.id) if user.kind == Kind.MODEL)
    pair = store.pairs(study.id)[0][0]

    def seen() -> tuple[int, int, int, int]:
        """Labels of the study, of a fit and of the pair's votes, and those of the export."""
        return (store.label_count(study.id), len(store.training_data(study.id).labels),
                sum(store.votes(pair, excluding=0)), len(list(store.export(study.id))))  # fmt: skip

    assert seen() == (1, 1, 1, 2) and len(store.labels(study.id, user_id=judge)) == 1
    before = store.revision(study.id)
    store.include_models(study.id, True)
    assert seen() == (2, 2, 2, 2) and store.revision(study.id) > before
    assert next(one for one in store.studies() if one.id == study.id).include_models
    store.include_simulated(study.id, False)
    assert seen() == (2, 2, 2, 2), "a language model is no simulated person"
    store.include_models(study.id, False)
    assert seen() == (1, 1, 1, 2)
    assert [entry.detail for entry in store.audit(study.id) if entry.event == "models"] == [
        {"include": False, "labels": 1}, {"include": True, "labels": 1}
    ]  # fmt: skip


def test_users_are_counted_by_kind_and_simulated_ones_only_where_they_are_included(store, study):
    assert store.user_counts(study.id) == {}
    for name, kind in (("Ann", Kind.HUMAN), ("Ben", Kind.HUMAN), ("Sim", Kind.SIMULATED), ("Model", Kind.MODEL)):
        store.create_user(study.id, name, kind=kind)
    assert store.user_counts(study.id) == {Kind.HUMAN: 2, Kind.SIMULATED: 1, Kind.MODEL: 1}
    store.include_simulated(study.id, False)
    assert store.user_counts(study.id) == {Kind.HUMAN: 2, Kind.MODEL: 1}
    store.forget_user(store.user_named(study.id, "Ann").id, fewest={})
    assert store.user_counts(study.id) == {Kind.HUMAN: 1, Kind.MODEL: 1}, "nobody who has left is counted"
