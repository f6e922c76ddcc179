"""The verbs of a study, on a real store and a real fit of a small world."""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, Kind, Role, RunState
from copl_core.study import access, contents, controversy, experts, labelling, rewards, runs, user_map
from copl_core.study.audience import Audience
from copl_core.study.rewards import FIRST
from copl_core.study.session import Session
from tests.worlds import (
    LONG,
    SHORT,
    camp_labels,
    camp_of,
    fit_graph_now,
    label_in_camp,
    long_text,
    open_study,
    pairs_to_label,
    short_text,
    two_camps,
)
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


def answer_all(session: Session, user_id: int, limit: int = 200) -> list:
    tasks = []
    while (task := labelling.next_task(session, user_id)) and len(tasks) < limit:
        tasks.append(task)
        labelling.submit(session, task.id, user_id, Choice.LEFT)
    return tasks


# ---- labelling


def test_the_same_task_is_shown_until_it_is_answered(untrained):
    ann = access.join(untrained, "Ann")
    task = labelling.next_task(untrained, ann.id)
    assert [labelling.next_task(untrained, ann.id) for _ in range(3)] == [task] * 3
    receipt = labelling.submit(untrained, task.id, ann.id, Choice.TIE)
    assert receipt.label.pair_id == task.pair_id and receipt.label.choice == Choice.TIE
    assert receipt.next_task.id != task.id and receipt.next_task.pair_id != task.pair_id
    assert labelling.next_task(untrained, ann.id) == receipt.next_task


def test_a_stale_answer_changes_nothing_and_the_pair_on_offer_comes_back(untrained):
    ann, ben = access.join(untrained, "Ann"), access.join(untrained, "Ben")
    first = labelling.next_task(untrained, ann.id)
    offered = labelling.submit(untrained, first.id, ann.id, Choice.LEFT).next_task
    revision = untrained.record.revision
    for task_id, user in ((first.id, ann), (offered.id, ben), (10**9, ann)):
        receipt = labelling.submit(untrained, task_id, user.id, Choice.RIGHT)
        assert receipt.label is None
        assert receipt.next_task == labelling.next_task(untrained, user.id)
    assert [one.choice for one in labelling.labels_of(untrained, ann.id)] == [Choice.LEFT]
    assert labelling.labels_of(untrained, ben.id) == [] and untrained.record.revision == revision


def test_everybody_sees_every_pair_and_repeats_come_with_their_sides_swapped(untrained):
    repeats = 0
    for name in ("Ann", "Ben", "Cem", "Dan", "Eva", "Fay", "Gus", "Hal"):
        user = access.join(untrained, name)
        tasks = answer_all(untrained, user.id)
        pairs = Counter(task.pair_id for task in tasks)
        assert len(pairs) == 12 and max(pairs.values()) <= 2
        assert labelling.next_task(untrained, user.id) is None and labelling.progress(untrained, user.id).left == 0
        assert labelling.progress(untrained, user.id).done == len(tasks)
        shown: dict[int, list] = {}
        for task in tasks:
            if task.reason == "repeat":
                repeats += 1
                assert [task.left.id, task.right.id] == shown[task.pair_id][::-1]
            shown[task.pair_id] = [task.left.id, task.right.id]
    lefts = Counter(len(task.left.text) < len(task.right.text) for task in tasks)
    assert len(lefts) == 2  # both sides have shown both kinds of answer


def test_done_stays_done(untrained):
    ann = access.join(untrained, "Ann")
    answer_all(untrained, ann.id)
    assert [labelling.next_task(untrained, ann.id) for _ in range(40)] == [None] * 40


def test_undo_brings_the_pair_back_with_the_same_sides_and_the_label_is_gone(untrained):
    ann = access.join(untrained, "Ann")
    task = labelling.next_task(untrained, ann.id)
    labelling.submit(untrained, task.id, ann.id, Choice.LEFT)
    again = labelling.undo(untrained, ann.id)
    assert (again.pair_id, again.left.id, again.right.id) == (task.pair_id, task.left.id, task.right.id)
    assert labelling.labels_of(untrained, ann.id) == [] and labelling.next_task(untrained, ann.id) == again
    assert labelling.submit(untrained, task.id, ann.id, Choice.RIGHT).label is None  # the old screen is stale
    assert labelling.submit(untrained, again.id, ann.id, Choice.RIGHT).label.choice == Choice.RIGHT
    assert labelling.undo(untrained, access.join(untrained, "Ben").id) is None


@pytest.mark.parametrize("name", ["Ann", "Ben", "Cem"])
def test_clicks_and_undos_in_several_windows_leave_one_answer_a_pair(untrained, name):
    user = access.join(untrained, name)

    def click(n: int) -> None:
        if n % 4 == 3:
            labelling.undo(untrained, user.id)
        elif task := labelling.next_task(untrained, user.id):
            labelling.submit(untrained, task.id, user.id, Choice.LEFT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(click, range(11)))  # too few answers for a pair to be repeated on purpose
    answered = Counter(label.pair_id for label in labelling.labels_of(untrained, user.id))
    assert answered and all(count == 1 for count in answered.values())
    assert labelling.progress(untrained, user.id).done == len(answered)


def test_names_are_checked_and_secrets_sign_in_whom_they_were_made_for(untrained):
    ann = access.join(untrained, "  Ann ", Role.RESEARCHER)
    assert access.join(untrained, "Ann") == ann  # one user of a name, whose role is not changed by the way
    token = access.sign_in_token(untrained, ann.id)
    assert access.sign_in(untrained, token) == ann and access.sign_in(untrained, token + "x") is None
    for name in ("", "   ", "x" * 81):
        with pytest.raises(CoplError, match="1 to 80"):
            access.join(untrained, name)


# ---- before the first snapshot


def test_without_a_snapshot_every_view_says_so_and_labelling_works(untrained):
    ann = access.join(untrained, "Ann")
    assert untrained.snapshot() is None and user_map.position(untrained, ann.id) is None
    assert (
        user_map.map_of_users(untrained) is None
        and experts.overview(untrained) is None
        and controversy.ranked(untrained) is None
    )
    with pytest.raises(CoplError, match="There is no snapshot yet"):
        rewards.reward(untrained, "What about number 3?", [short_text(3), long_text(3)])
    assert labelling.next_task(untrained, ann.id).reason == "uniform"


def test_a_fit_is_asked_for_once_and_only_where_there_is_something_to_fit(untrained):
    with pytest.raises(CoplError, match="0 labels and a fit needs 10"):
        runs.request_fit(untrained, "graph")
    with pytest.raises(CoplError, match="no run of kind 'deep'"):
        runs.request_fit(untrained, "deep")
    contents.import_rows(untrained, camp_labels(n_users=1, per_user=12))
    with pytest.raises(CoplError, match="reward model needs 20"):
        runs.request_fit(untrained, "full")
    run = runs.request_fit(untrained, "graph")
    assert runs.request_fit(untrained, "graph").id == run.id
    runs.cancel(untrained, run.id)
    assert runs.list_runs(untrained)[0].state == RunState.CANCELLED
    with pytest.raises(CoplError, match="only a queued or running one"):
        runs.cancel(untrained, run.id)
    assert runs.request_fit(untrained, "graph").id != run.id


# ---- with a snapshot


def test_a_newcomer_is_placed_by_neighbours_and_trained_after_the_next_fit(trained):
    ann = access.join(trained, "Ann")
    start = user_map.position(trained, ann.id)
    assert (start.source, start.n_labels, start.group) == ("population mean", 0, None)
    label_in_camp(trained, ann.id, SHORT, 6)
    near = user_map.position(trained, ann.id)
    assert (near.source, near.n_labels) == ("neighbours", 6) and near.n_neighbours > 0
    view = user_map.map_of_users(trained)
    assert near.group == view.group[view.names == "user 00"] and near.spread < start.spread
    assert fit_graph_now(trained) == "v0002"
    placed = user_map.position(trained, ann.id)
    assert (placed.source, placed.snapshot, placed.group) == ("trained", "v0002", near.group)
    label_in_camp(trained, ann.id, SHORT, 1)
    assert user_map.position(trained, ann.id).source == "neighbours"
    labelling.undo(trained, ann.id)
    assert user_map.position(trained, ann.id).source == "trained"


def test_the_two_camps_are_two_groups_on_the_map(trained):
    view = user_map.map_of_users(trained)
    camps = {
        group: {camp_of(int(name[-2:])) for name in view.names[view.group == group]} for group in view.group.tolist()
    }
    assert sorted(map(sorted, camps.values())) == [[LONG], [SHORT]]
    assert view.groups == [0, 1] and view.snapshot == "v0001" and view.total_labels == 160
    assert np.isfinite(view.xy).all() and (view.n_labels == 10).all()


def test_who_looks_at_the_map_is_placed_live_and_others_are_not(trained):
    ann = access.join(trained, "Ann")
    label_in_camp(trained, ann.id, LONG, 4)
    still, live = user_map.map_of_users(trained), user_map.map_of_users(trained, ann.id)
    row = int(still.rows([ann.id])[0])
    assert still.me is None and not still.placed[row] and still.group[row] == -1 and still.n_labels[row] == 0
    assert live.me == row and live.my_source == "neighbours" and live.n_labels[row] == 4 and live.placed[row]


def test_group_numbers_and_places_outlive_a_refit(trained):
    before = user_map.map_of_users(trained)
    contents.import_rows(trained, camp_labels(seed=1, per_user=4))
    fit_graph_now(trained)
    after = user_map.map_of_users(trained)
    assert after.ids.tolist() == before.ids.tolist() and after.group.tolist() == before.group.tolist()
    where = np.hstack([before.xy, after.xy])
    size = np.linalg.norm(where[:, :2] - where[:, :2].mean(0), axis=1).mean()
    assert np.linalg.norm(where[:, :2] - where[:, 2:], axis=1).mean() < size


def test_labels_taught_by_the_model_are_asked_for_and_a_part_stays_uniform(trained):
    reasons = Counter()
    for n in range(6):
        user = access.join(trained, f"new {n}")
        reasons.update(task.reason for task in answer_all(trained, user.id))
    assert reasons["informative"] > reasons["uniform"] > 0


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


def test_a_large_study_is_looked_at_in_pieces(trained, monkeypatch):
    whole = controversy.table(trained)
    monkeypatch.setattr("copl_core.study.controversy._CELLS", 40)
    pieces = controversy.table(Session(trained.store, trained.settings, trained.id))
    assert np.array_equal(pieces.pairs, whole.pairs) and np.array_equal(pieces.responses, whole.responses)
    for kind in ("of_pairs", "of_responses"):
        for name in ("between", "within", "aleatoric", "epistemic", "by_group"):
            one, other = getattr(getattr(pieces, kind), name), getattr(getattr(whole, kind), name)
            assert one == pytest.approx(other, abs=1e-5), (kind, name)


def test_the_snapshot_is_opened_once_and_followed_when_the_champion_moves(trained):
    first = trained.snapshot()
    assert trained.snapshot() is first
    label_in_camp(trained, access.join(trained, "Ann").id, SHORT, 2)
    fit_graph_now(trained)
    assert trained.snapshot().version == "v0002"
    runs.promote(trained, "v0001")
    assert trained.record.champion == "v0001" and user_map.map_of_users(trained).snapshot == "v0001"
    assert trained.snapshot() is first


def test_a_damaged_snapshot_is_not_promoted_and_the_champion_stays(trained):
    owner = access.join(trained, "Olga", Role.OWNER)
    fit_graph_now(trained)
    runs.promote(trained, "v0001", by=owner.id)
    path = trained.snapshot_root / "v0002" / "graph" / "graph.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit
    with pytest.raises(CoplError, match="v0002 is damaged .graph/graph.safetensors"):
        runs.promote(trained, "v0002")
    path.write_bytes(content[:100])
    with pytest.raises(CoplError, match="v0002 is damaged"):
        runs.promote(trained, "v0002")
    with pytest.raises(CoplError, match="v0009"):
        runs.promote(trained, "v0009")
    assert trained.record.champion == "v0001"
    path.write_bytes(content)
    runs.promote(trained, "v0002")
    assert trained.record.champion == "v0002"
    assert owner.id in {entry.user_id for entry in trained.store.audit(trained.id) if entry.event == "champion"}


def test_a_damaged_champion_is_told_by_the_views_and_does_not_stop_labelling(trained):
    (trained.snapshot_root / "v0001" / "layout" / "layout.json").unlink()
    ann = access.join(trained, "Ann")
    for view in (user_map.map_of_users, controversy.ranked, lambda session: user_map.position(session, ann.id)):
        with pytest.raises(CoplError, match="v0001 is damaged"):
            view(trained)
    task = labelling.next_task(trained, ann.id)
    assert task.reason == "uniform" and labelling.submit(trained, task.id, ann.id, Choice.LEFT).label


def test_rewards_of_known_texts_come_from_the_graph_before_there_is_a_reward_model(trained):
    users = {user.name: user.id for user in access.users(trained)}
    prompt, texts = "What about number 3?", [short_text(3), long_text(3)]
    view = rewards.reward(
        trained, f" {prompt}\n", texts, users=[users["user 00"], users["user 01"], access.join(trained, "Ann").id]
    )
    likes_short, likes_long, ann, *groups = view.rows
    assert likes_short.win[0] > 0.6 and likes_long.win[1] > 0.6
    assert (likes_short.source, ann.source) == ("trained", "population mean")
    assert likes_short.kind == "simulated person" and ann.kind == "person"
    assert [row.n for row in groups] == [8, 8] and {row.kind for row in groups} == {"group"}
    for row in view.rows:
        assert row.win.sum() == pytest.approx(1) and row.reward.sum() == pytest.approx(0, abs=1e-5)
        assert row.expert is None and row.gate is None
    assert view.known and view.snapshot == "v0001" and "graph alone" in view.basis
    swapped = rewards.reward(trained, prompt, texts[::-1], users=[users["user 00"]], groups=False)
    assert len(swapped.rows) == 1 and swapped.rows[0].win == pytest.approx(likes_short.win[::-1])


def test_somebody_after_five_answers_is_told_by_others_and_not_by_what_they_answered_since(trained):
    user = next(user for user in access.users(trained) if user.name == "user 00")
    assert len(trained.store.labels(trained.id, user_id=user.id)) > FIRST
    snapshot = trained.snapshot()
    placed = rewards._users(trained, snapshot.graph, [user.id], [user.id], [])
    audience = Audience(snapshot, placed, groups=False)
    own = audience.vectors[audience.users[0].own]
    for rows in audience.users:
        near = audience.vectors[rows.neighbours]
        assert len(near) and not (near == own).all(1).any()
    assert [rows.source for rows in audience.users] == ["trained", "neighbours"]


@pytest.mark.parametrize(
    ("prompt", "responses", "problem"),
    [
        ("", ["a", "b"], "The prompt is empty"),
        ("why", ["a"], "Responses with text: 1; two or more"),
        ("why", ["a", "  "], "Responses with text: 1"),
        ("why", ["a", " a "], "the same text"),
    ],
)
def test_a_question_that_cannot_be_judged_is_answered_in_a_sentence(trained, prompt, responses, problem):
    with pytest.raises(CoplError, match=problem):
        rewards.reward(trained, prompt, responses)


def test_nothing_is_written_by_looking(trained):
    ann = access.join(trained, "Ann")
    before = (trained.record, trained.store.label_count(trained.id), runs.snapshots(trained), runs.list_runs(trained))
    user_map.position(trained, ann.id), user_map.map_of_users(trained, ann.id), controversy.ranked(trained)
    rewards.reward(trained, "What about number 3?", [short_text(3), long_text(3)], users=[ann.id])
    assert (
        trained.record,
        trained.store.label_count(trained.id),
        runs.snapshots(trained),
        runs.list_runs(trained),
    ) == before


# ---- simulated people, the trainer, the record


def test_simulated_people_can_be_switched_off_and_on_again(trained):
    ann = access.join(trained, "Ann")
    label_in_camp(trained, ann.id, SHORT, 12)
    access.include_simulated(trained, False, by=ann.id)
    assert [user.name for user in access.users(trained)] == ["Ann"]
    assert user_map.map_of_users(trained).names.tolist() == ["Ann"]
    assert trained.store.label_count(trained.id) == 12
    assert {row["annotator"] for row in contents.export(trained)} == {"Ann"}
    fit_graph_now(trained)
    assert trained.snapshot().graph.user_ids.tolist() == [ann.id]
    access.include_simulated(trained, True)
    assert len(access.users(trained)) == 17 and trained.store.label_count(trained.id) == 172


def test_the_trainer_is_alive_while_its_process_beats(trained):
    assert not runs.trainer_status(trained).alive
    trained.store.heartbeat(os.getpid(), "waiting for labels")
    status = runs.trainer_status(trained)
    assert status.alive and status.state == "waiting for labels" and status.run is None and status.labels_since == 0
    label_in_camp(trained, access.join(trained, "Ann").id, SHORT, 3)
    run = runs.request_fit(trained, "graph")
    status = runs.trainer_status(trained)
    assert (status.labels_since, status.labels_needed, status.waiting) == (3, trained.settings.refit_labels, 1)
    trained.store.update_run(run.id, state=RunState.RUNNING, started_at=datetime.now(UTC))
    status = runs.trainer_status(trained)
    assert status.run.id == run.id and status.waiting == 0
    trained.store.heartbeat(2**22 + 1, "waiting for labels")  # a number that no process has
    assert not runs.trainer_status(trained).alive


def test_what_is_recorded_of_a_snapshot_is_plain_json(trained):
    record = runs.snapshots(trained)[0]
    manifest = json.loads((trained.snapshot_root / "v0001" / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert manifest["watermark"] == record.watermark == trained.record.revision
    assert manifest["labels"] == record.n_labels == 160
    json.dumps(record.metrics, allow_nan=False)
    assert record.metrics["graph"]["n"] > 0 and record.metrics["reward_watermark"] is None


def test_an_export_brings_the_same_labels_into_an_empty_study(trained, tmp_path):
    from copl_core.formats.own import read_rows, write_jsonl

    ann = access.join(trained, "Ann")
    label_in_camp(trained, ann.id, LONG, 3)
    labelling.undo(trained, ann.id)
    assert write_jsonl(contents.export(trained), tmp_path / "labels.jsonl") == 162
    problems: list = []
    copy = open_study(tmp_path / "copy")
    report = contents.import_rows(copy, read_rows(tmp_path / "labels.jsonl", problems))
    assert (report.labels_new, report.users_new, problems) == (162, 17, [])

    def told(session: Session) -> list[dict]:
        rows = [
            {name: value for name, value in row.items() if name not in ("pair_id", "dataset", "asked")}
            for row in contents.export(session)
        ]
        return sorted(map(seen, rows), key=lambda row: row["label_key"])

    def seen(row: dict) -> dict:
        """The row by the sides it was shown on: which response is called a and which b is the file's own affair."""
        sides = {"left": row["response_" + row["left"]], "right": row["response_" + row["right"]]}
        choice = {row["left"]: "left", row["right"]: "right"}.get(row["choice"], row["choice"])
        rest = {name: value for name, value in row.items() if not name.startswith(("response_", "model_"))}
        return rest | sides | {"choice": choice}

    assert told(copy) == told(trained)
    kinds = {user.name: user.kind for user in access.users(copy)}
    assert kinds["Ann"] == Kind.HUMAN and kinds["user 00"] == Kind.SIMULATED
