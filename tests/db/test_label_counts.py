"""What is counted by user equals what the table of labels holds, whatever happens to labels and people."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from sqlalchemy import text

from copl_core.records import Choice, Ground, ImportRow, Kind, Role
from copl_core.study_settings import SelectionReason
from db.engine import reading

FEWEST = {"graph": 10, "full": 20}


def rows(n: int, of: int) -> list[ImportRow]:
    """Labels of people, of a simulated person and of a model."""
    kinds = (("Ann", Kind.HUMAN), ("Cem", Kind.HUMAN), ("Robot", Kind.SIMULATED), ("gpt-4", Kind.MODEL))
    return [
        ImportRow(i, "prompt 0", "answer 0", f"other {i % 3}", Choice.LEFT, kinds[i % 4][0], kind=kinds[i % 4][1],
                  key=f"{of}-{i}")
        for i in range(n)
    ]  # fmt: skip


def counted(store, study_id: int) -> dict[int, tuple[int, int]]:
    """User → (preferences, checks), by the table of labels."""
    query = "select user_id, attention from label where study_id = :study and counts"
    found: dict[int, list[int]] = {}
    with reading(store.engine) as connection:
        for user, attention in connection.execute(text(query), {"study": study_id}):
            found.setdefault(user, [0, 0])[bool(attention)] += 1
    return {user: tuple(n) for user, n in found.items()}


def kept(store, study_id: int) -> dict[int, tuple[int, int]]:
    query = 'select id, n_preferences, n_checks from "user" where study_id = :study and n_preferences + n_checks <> 0'
    with reading(store.engine) as connection:
        return {row[0]: tuple(row[1:]) for row in connection.execute(text(query), {"study": study_id})}


def check(store, study_id: int) -> tuple:
    """The law; returns (state, table of answers)."""
    everybody, answers = counted(store, study_id), store.answers(study_id)
    assert kept(store, study_id) == everybody
    n_labels = len(store.training_data(study_id).labels)
    assert store.label_count(study_id) == n_labels
    assert [store.label_count(study_id, most=most) for most in (1, 3, 20)] == [min(n_labels, n) for n in (1, 3, 20)]
    assert store.answer_counts(study_id) == (len(np.unique(answers.user)), len(answers))
    shown = store.users(study_id)
    assert store.left_out(study_id) == [one.id for one in shown if one.excluded or one.quarantined]
    assert store.some_users(study_id, 1.0) == sorted(set(np.unique(answers.user).tolist()))
    assert store.users(study_id, ids=[one.id for one in shown[::-1]]) == shown
    table = [np.asarray(getattr(answers, name)).tolist() for name in type(answers).__slots__]
    return store.answers_state(study_id), (table, store.left_out(study_id))


@pytest.fixture
def acts(store, study, ann, ben, hand_out) -> list[Callable[[Random], object]]:
    """What may happen to the labels of Ann and Ben, and of those who come with a file."""
    store.import_rows(study.id, [ImportRow(n, f"prompt {n}", "answer", "other") for n in range(8)])
    pairs = store.pairs(study.id)
    store.set_gold(study.id, pairs[0][0], pairs[0][1])
    imports = iter(range(1000))

    def label(random: Random) -> None:
        user = random.choice((ann, ben))
        reason = random.choice((SelectionReason.UNIFORM, SelectionReason.REPEAT, SelectionReason.GOLD))
        pair = pairs[0] if reason == SelectionReason.GOLD else random.choice(pairs[1:])
        task = hand_out(user.id, pair[0], reason=reason.value)
        if task is not None:
            random.choice((store.submit, store.submit, store.submit, lambda task, user, _: store.skip(task, user)))(
                task.id, user.id, random.choice(list(Choice))
            )

    def edit(random: Random) -> None:
        mine = store.labels(study.id, user_id=ann.id)
        if mine:
            store.edit(random.choice(mine).id, ann.id, random.choice(list(Choice)))

    def decide(random: Random) -> None:
        if store.user(ben.id).quarantined:
            store.decide_quarantine(ben.id, random.random() < 0.5)

    return [
        *[label] * 6,
        lambda random: [store.undo(user.id) for user in (ann, ben)],
        edit,
        lambda random: store.import_rows(study.id, rows(random.randint(1, 6), next(imports))),
        lambda random: store.exclude(random.choice((ann, ben)).id, random.random() < 0.5),
        lambda random: store.quarantine(ben.id, [Ground(str(random.random()), "Answers too fast.")]),
        decide,
        lambda random: store.include_simulated(study.id, random.random() < 0.5),
        lambda random: store.include_models(study.id, random.random() < 0.5),
    ]


def test_counts_by_user_equal_the_labels_and_the_state_changes_with_every_answer(store, study, ann, ben, acts):
    random, before = Random(5), check(store, study.id)
    turns = [act for act in acts for _ in range(4)]  # each of them, after some labels, in a drawn order
    random.shuffle(turns)
    for act in [*acts[:6], *turns]:
        act(random)
        now = check(store, study.id)
        assert (now[0] == before[0]) <= (now[1] == before[1]), "figures of other answers would stay on the page"
        before = now
    store.create_user(study.id, "Owner", role=Role.OWNER)
    store.forget_user(ann.id, fewest=FEWEST)
    check(store, study.id)
    assert ann.id not in counted(store, study.id)


def test_a_restored_study_counts_its_labels_again(store, study, ann, answer, four_pairs):
    answer(ann.id, four_pairs[1][0], Choice.LEFT)
    parts: list[tuple[str, list[dict]]] = []
    store.read_study(study.id, lambda name, rows: parts.append((name, [dict(row) for row in rows])))
    facts = parts[0][1][0]
    kept_rows = [(name, row) for name, own in parts[1:] for row in own]
    assert "n_preferences" not in dict(kept_rows)["users"]
    new = store.create_study("Again", ready=False).id
    store.restore_rows(new, kept_rows)
    store.finish_restored(new, facts, "2026-01-01T00:00:00+00:00")
    assert counted(store, new) == kept(store, new) and store.label_count(new) == 1


def test_people_are_found_by_a_part_of_their_name(store, study):
    for name in ("Ann", "Hanna", "ANNA", "100 %", "Ben"):
        store.create_user(study.id, name)
    store.create_user(study.id, "Annabot", kind=Kind.SIMULATED)
    assert [one.name for one in store.find_users(study.id, "ann", 9)] == ["Ann", "ANNA", "Hanna", "Annabot"]
    assert [one.name for one in store.find_users(study.id, "%", 9)] == ["100 %"]
    assert [one.name for one in store.find_users(study.id, "", 2)] == ["Ann", "Hanna"]
    assert [store.user(one).name for one in store.users_of_kind(study.id, Kind.SIMULATED)] == ["Annabot"]
    store.include_simulated(study.id, False)
    assert [one.name for one in store.find_users(study.id, "annab", 9)] == []
    assert len(store.users(study.id)) == 5 and len(store.users(study.id, most=3)) == 3
