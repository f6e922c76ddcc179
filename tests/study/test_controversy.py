"""The verbs of the Controversy page, on two camps with a snapshot."""

from __future__ import annotations

import csv
import io
from collections import Counter

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, ImportRow, Kind, Role
from copl_core.study import access, contents, controversy, labelling
from copl_core.study.controversy import Query
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from tests.worlds import long_text, short_text, trained, two_camps


@pytest.fixture
def session(tmp_path, tmp_path_factory) -> Session:
    return trained(two_camps, tmp_path_factory, tmp_path / "camps")


# ---- pinned pairs


def test_a_pinned_pair_is_the_next_task_of_everybody_who_has_not_answered_it(session):
    olga, ann, ben = access.join(session, "Olga", Role.OWNER), access.join(session, "Ann"), access.join(session, "Ben")
    divided = controversy.ranked(session, 1).items[0]
    for _ in range(3):
        labelling.submit(session, labelling.next_task(session, ben.id).id, ben.id, Choice.LEFT)
    before = labelling.next_task(session, ben.id)
    pinned = next(
        pair.pair_id
        for pair in controversy.ranked(session, 12).items
        if pair.pair_id != before.pair_id
        and pair.pair_id not in {x.pair_id for x in labelling.labels_of(session, ben.id)}
    )
    assert labelling.pin_pair(session, pinned, by=olga.id).by == olga.id
    task = labelling.next_task(session, ann.id)
    assert (task.pair_id, task.reason) == (pinned, "front")
    assert labelling.next_task(session, ben.id).id == before.id  # what is on a screen stays there
    assert labelling.submit(session, before.id, ben.id, Choice.LEFT).next_task.pair_id == pinned
    after = labelling.submit(session, task.id, ann.id, Choice.RIGHT).next_task
    assert after.pair_id != pinned and after.reason != "front"
    assert [(ask.pair_id, ask.answered) for ask in labelling.pinned_pairs(session)] == [(pinned, 1)]
    assert divided.pair_id in {pair[0] for pair in session.store.pairs(session.id)}
    entry = access.audit(session)[0]
    assert (entry.event, entry.user_id, entry.detail) == ("ask", olga.id, {"pair": pinned})


def test_overlap_and_reservations_hold_for_a_pinned_pair(session):
    labelling.set_assignment(session, AssignmentSettings(overlap=1))
    people = [access.join(session, name) for name in ("Ann", "Ben", "Cem")]
    pinned = controversy.ranked(session, 1).items[0].pair_id
    labelling.pin_pair(session, pinned)
    first, second, _ = (labelling.next_task(session, person.id) for person in people)
    assert first.pair_id == pinned and second.pair_id != pinned  # Ann has reserved the only slot
    labelling.submit(session, first.id, people[0].id, Choice.TIE)
    assert labelling.submit(session, second.id, people[1].id, Choice.TIE).next_task.pair_id != pinned


def test_practice_comes_before_a_pinned_pair(session):
    pinned, gold = (pair.pair_id for pair in controversy.ranked(session, 2).items)
    labelling.set_gold(session, gold, contents.pair(session, gold).first.id)
    labelling.set_assignment(session, AssignmentSettings(practice=1))
    labelling.pin_pair(session, pinned)
    ann = access.join(session, "Ann")
    first = labelling.next_task(session, ann.id)
    assert first.reason == "practice"
    assert labelling.submit(session, first.id, ann.id, Choice.LEFT).next_task.pair_id == pinned


def test_only_researchers_pin_and_an_unpinned_pair_waits_like_any_other(session):
    ann, rosa = access.join(session, "Ann"), access.join(session, "Rosa", Role.RESEARCHER)
    pair = controversy.ranked(session, 1).items[0].pair_id
    with pytest.raises(CoplError, match="Ann is annotator here"):
        labelling.pin_pair(session, pair, by=ann.id)
    labelling.pin_pair(session, pair, by=rosa.id)
    with pytest.raises(CoplError, match="researcher or an owner"):
        labelling.unpin_pair(session, pair, by=ann.id)
    assert labelling.unpin_pair(session, pair, by=rosa.id) and labelling.pinned_pairs(session) == []
    assert labelling.next_task(session, ann.id).reason != "front"


# ---- what divides


def test_every_number_of_a_pair_is_part_of_one_whole(session):
    for pair in controversy.ranked(session, 12).items:
        parts = (pair.between, pair.within, pair.aleatoric, pair.epistemic)
        assert all(part >= 0 for part in parts) and 0 < pair.variance <= 0.25 + 1e-6
        shares = {group: size / 16 for group, size in controversy.table(session).groups.items()}
        mean = sum(shares[group] * chance for group, chance in pair.by_group)
        assert pair.variance == pytest.approx(mean * (1 - mean), abs=1e-4)


def test_responses_are_ranked_too_and_lead_to_their_pairs(session):
    view = controversy.ranked(session, 24, query=Query(kind="responses"))
    assert len(view.items) == view.n_matching == 24 and all(one.second is None for one in view.items)
    for one in view.items:
        pair = controversy.item(session, one.pair_id)
        assert one.first.id in (pair.first.id, pair.second.id) and one.voters == pair.voters
        sign = 1 if one.first.id == pair.first.id else -1  # its only pair, seen from its side
        for (_, alone), (_, both) in zip(one.by_group, pair.by_group, strict=True):
            assert alone - 0.5 == pytest.approx(sign * (both - 0.5), abs=1e-5)


def test_filters_by_prompt_source_and_votes(session):
    contents.import_rows(
        session, [ImportRow(0, "What about number 3?", short_text(3), long_text(3), source_a="model x")]
    )
    every = controversy.ranked(session, 12)
    one = every.items[4]
    assert [p.pair_id for p in controversy.ranked(session, 12, query=Query(prompt=one.prompt_id)).items] == [
        one.pair_id
    ]
    voters = sorted((p.voters for p in every.items), reverse=True)
    found = controversy.ranked(session, 12, query=Query(least_votes=voters[3]))
    assert len(found.items) == found.n_matching == sum(v >= voters[3] for v in voters)
    assert min(p.voters for p in found.items) >= voters[3]
    assert controversy.ranked(session, 12, query=Query(source="nowhere")).n_matching == 0
    assert contents.sources(session) == []  # the text was there before its file named a source


def test_a_source_leads_to_the_pairs_of_its_responses(tmp_path):
    from tests.worlds import camp_labels, fit_graph_now, open_study, pairs_to_label

    session = open_study(tmp_path / "with sources")
    rows = pairs_to_label(6)
    contents.import_rows(
        session,
        [
            ImportRow(r.line, r.prompt, r.response_a, r.response_b, source_a="one", source_b="two") if r.line < 2 else r
            for r in rows
        ],
    )
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=5))
    fit_graph_now(session)
    assert contents.sources(session) == ["one", "two"]
    assert controversy.ranked(session, 12, query=Query(source="one")).n_matching == 2
    assert controversy.ranked(session, 12, query=Query(kind="responses", source="one")).n_matching == 2


def test_a_person_who_answers_twice_votes_once_with_the_newest_answer(session):
    ann = access.join(session, "Ann")
    pair = controversy.ranked(session, 1).items[0]
    before = controversy.item(session, pair.pair_id)
    rows = [
        ImportRow(0, pair.prompt, pair.first.text, pair.second.text, choice, "Ann", key=f"ann {choice}")
        for choice in (Choice.LEFT, Choice.RIGHT)
    ]
    contents.import_rows(session, rows)
    now = controversy.item(session, pair.pair_id)
    assert now.voters == before.voters + 1 and now.votes[None] == (0, 1, 0) and ann.kind == Kind.HUMAN


def test_the_export_holds_every_wanted_row_with_texts_numbers_and_votes(session):
    rows = list(csv.DictReader(io.StringIO(controversy.export_csv(session, Query()))))
    view = controversy.ranked(session, 12)
    assert [int(row["pair"]) for row in rows] == [pair.pair_id for pair in view.items]
    first, pair = rows[0], view.items[0]
    assert (first["prompt"], first["first"], first["second"]) == (pair.prompt, pair.first.text, pair.second.text)
    assert float(first["between"]) == pytest.approx(pair.between, abs=1e-4) and first["snapshot"] == "v0001"
    assert int(first["group_1_first"]) == pair.votes[0][0] and int(first["people"]) == pair.voters
    responses = list(
        csv.DictReader(io.StringIO(controversy.export_csv(session, Query(kind="responses", consensus=True))))
    )
    assert len(responses) == 24 and responses[0]["second"] == ""


def test_a_group_too_large_to_look_at_whole_is_sampled_and_the_view_says_so(session, monkeypatch):
    whole = controversy.table(session)
    monkeypatch.setattr("copl_core.study.controversy._BUDGET", 0)
    monkeypatch.setattr("copl_core.study.controversy._FEWEST", 4)
    few = controversy.table(Session(session.store, session.settings, session.id))
    assert few.n_evaluated == 8 and whole.n_evaluated == 16 and few.groups == whole.groups
    assert np.abs(few.of_pairs.between - whole.of_pairs.between).max() < 0.1


def test_features_are_named_for_the_text_that_has_more_of_them(session):
    found, more, fewer = controversy.compare_texts(session, long_text(1), short_text(1))
    assert not found.comparable and "longer answers" in more and "longer answers" not in fewer
    _, swapped_more, swapped_fewer = controversy.compare_texts(session, short_text(1), long_text(1))
    assert (swapped_more, swapped_fewer) == (fewer, more)
    _, nothing, neither = controversy.compare_texts(session, long_text(1), long_text(1))
    assert nothing == neither == ()


def test_before_the_first_snapshot_there_is_nothing(tmp_path):
    session = two_camps(tmp_path / "new")
    assert (
        controversy.table(session) is None
        and controversy.ranked(session) is None
        and controversy.item(session, 1) is None
    )
    with pytest.raises(CoplError, match="no snapshot yet"):
        controversy.export_csv(session, Query())


def test_controversy_shows_what_the_groups_expect_and_the_votes_that_were_cast(trained):
    view = controversy.ranked(trained, limit=5)
    assert view.n_pairs == 12 and len(view.items) == 5 and view.snapshot == "v0001"
    assert [p.between for p in view.items] == sorted((p.between for p in view.items), reverse=True)
    pair = view.items[0]
    assert pair.between > 0.1 and dict(pair.by_group).keys() == {0, 1}
    cast = Counter(label.preferred_id for label in trained.store.labels(trained.id, pair_id=pair.pair_id))
    assert sum(votes[0] for votes in pair.votes.values()) == cast[pair.first.id]
    assert sum(votes[1] for votes in pair.votes.values()) == cast[pair.second.id]
    for group, expected in pair.by_group:
        first, second, _ = pair.votes[group]
        assert (expected > 0.5) == (first > second)  # the camps are nearly unanimous
    calm = controversy.ranked(trained, limit=12, consensus=True).items
    surest = [max(min(p for _, p in pair.by_group), 1 - max(p for _, p in pair.by_group)) for pair in calm]
    assert [max(0.5, one) for one in surest] == sorted((max(0.5, one) for one in surest), reverse=True)


def test_votes_of_people_without_a_group_and_ties_are_counted_apart(trained):
    pair_id = controversy.ranked(trained, limit=1).items[0].pair_id
    ann = access.join(trained, "Ann")
    while (task := labelling.next_task(trained, ann.id)).pair_id != pair_id:
        labelling.submit(trained, task.id, ann.id, Choice.TIE)
    labelling.submit(trained, task.id, ann.id, Choice.BOTH_BAD)
    pair = next(p for p in controversy.ranked(trained, limit=12).items if p.pair_id == pair_id)
    assert pair.votes[None] == (0, 0, 1)


def test_a_large_study_is_computed_in_pieces(trained, monkeypatch):
    whole = controversy.table(trained)
    monkeypatch.setattr("copl_core.study.controversy._CELLS", 40)
    pieces = controversy.table(Session(trained.store, trained.settings, trained.id))
    assert np.array_equal(pieces.pairs, whole.pairs) and np.array_equal(pieces.responses, whole.responses)
    for kind in ("of_pairs", "of_responses"):
        for name in ("between", "within", "aleatoric", "epistemic", "by_group"):
            one, other = getattr(getattr(pieces, kind), name), getattr(getattr(whole, kind), name)
            assert one == pytest.approx(other, abs=1e-5), (kind, name)
