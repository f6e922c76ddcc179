"""A session: its snapshot, and views with no snapshot, with a damaged one, and that change nothing."""

from __future__ import annotations

from shutil import copytree

import pytest

from copl_core.records import Choice, CoplError
from copl_core.study import access, controversy, experts, labelling, rewards, runs, user_map
from tests.worlds import (
    SHORT,
    fit_graph_now,
    label_in_camp,
    long_text,
    short_text,
)


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


def test_the_snapshot_is_opened_once_and_followed_when_the_champion_moves(trained):
    first = trained.snapshot()
    assert trained.snapshot() is first
    label_in_camp(trained, access.join(trained, "Ann").id, SHORT, 2)
    fit_graph_now(trained)
    assert trained.snapshot().version == "v0002"
    runs.promote(trained, "v0001")
    assert trained.record.champion == "v0001" and user_map.map_of_users(trained).snapshot == "v0001"
    assert trained.snapshot() is first


def test_views_report_a_damaged_champion_and_labelling_goes_on(trained):
    (trained.snapshot_root / "v0001" / "layout" / "layout.json").unlink()
    ann = access.join(trained, "Ann")
    for view in (user_map.map_of_users, controversy.ranked, lambda session: user_map.position(session, ann.id)):
        with pytest.raises(CoplError, match="v0001 is damaged"):
            view(trained)
    task = labelling.next_task(trained, ann.id)
    assert task.reason == "uniform" and labelling.submit(trained, task.id, ann.id, Choice.LEFT).label


def test_views_write_nothing(trained):
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


def test_what_was_computed_of_a_snapshot_goes_with_it_and_the_one_used_last_stays(trained):
    root = trained.snapshot_root
    for version in ("v0002", "v0003", "v0004"):
        copytree(root / "v0001", root / version)
    for version in ("v0001", "v0002", "v0003", "v0001"):
        trained.open_snapshot(version)
        trained.once(f"figures of {version}", trained.id, lambda version=version: version)
    trained.open_snapshot("v0004")
    made = []
    for version in ("v0001", "v0002"):
        trained.once(f"figures of {version}", trained.id, lambda version=version: made.append(version))
    assert made == ["v0002"]
