"""The verbs of the People page: the map, colours, neighbours, comparisons, and groups in words."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS
from copl_core.records import Choice, CoplError, ImportRow, Kind
from copl_core.study import access, contents, group_profiles, label_quality, labelling, user_map
from copl_core.study_settings import AssignmentSettings
from tests.worlds import LONG, SHORT, camp_labels, camp_of, fit_graph_now, label_in_camp, open_study, trained, two_camps

FOUR = {
    "lists": "- One thing.\n- Another thing.\n- A third thing.",
    "questions": "One thing? Another thing? A third?",
    "digits": "Things 1, 22 and 333.",
    "exclamations": "One thing! Another thing! A third!",
}


@pytest.fixture
def camps(tmp_path, tmp_path_factory):
    return trained(two_camps, tmp_path_factory, tmp_path / "camps")


def of_camp(view, camp: str) -> np.ndarray:
    """Ids of the simulated people of a camp."""
    return view.ids[[one.startswith("user") and camp_of(int(one[-2:])) == camp for one in view.names.tolist()]]


# ---- the map


def test_everybody_has_a_row_and_users_without_labels_have_no_position(camps):
    ann = access.join(camps, "Ann")
    view = user_map.map_of_users(camps)
    assert len(view.ids) == 17 and view.placed.sum() == 16 and view.snapshot == "v0001" and view.total_labels == 160
    (row,) = view.rows([ann.id])
    assert view.group[row] == -1 and np.isnan(view.xy[row]).all() and view.n_labels[row] == 0
    assert not view.simulated[row] and view.simulated.sum() == 16 and view.me is None
    assert view.xyz.shape == (17, 3) and np.isfinite(view.xyz[view.placed]).all()
    assert view.groups == [0, 1] and view.rows([ann.id, 10**9]).tolist() == [row]


def test_the_viewer_is_positioned_by_their_present_labels(camps):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 6)
    view = user_map.map_of_users(camps, ann.id)
    mine = set(view.group[view.rows(of_camp(view, SHORT))].tolist())
    assert {int(view.group[view.me])} == mine and view.n_labels[view.me] == 6 and view.my_source == "neighbours"
    assert np.isfinite(view.xy[view.me]).all() and np.isfinite(view.xyz[view.me]).all()
    assert not user_map.map_of_users(camps).placed[view.me]


def test_an_earlier_snapshot_is_shown_as_it_was_on_axes_that_hold_both(camps):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, LONG, 10)
    fit_graph_now(camps)
    old, new = user_map.map_of_users(camps, version="v0001"), user_map.map_of_users(camps)
    assert (old.snapshot, new.snapshot) == ("v0001", "v0002")
    (row,) = new.rows([ann.id])
    assert new.placed[row] and not old.placed[row]
    frame = user_map.map_frame(camps, ["v0001", "v0002", "v0009"])
    corners = frame.extent
    assert frame.versions == ("v0001", "v0002") and frame.xy.shape == (2, len(frame.ids), 2)
    for view, positions in zip((old, new), frame.xy, strict=True):
        shown = frame.turned(view.xy)[view.placed]
        assert (shown >= corners[0, :2] - 1e-5).all() and (shown <= corners[1, :2] + 1e-5).all()
        assert np.allclose(positions[np.isin(frame.ids, view.ids[view.placed])], shown, atol=1e-5)
        assert (view.xyz[view.placed] >= corners[0, 2:] - 1e-5).all()
        assert (view.xyz[view.placed] <= corners[1, 2:] + 1e-5).all()
    mine = frame.xy[:, frame.ids == ann.id]
    assert np.isnan(mine[0]).all() and np.isfinite(mine[1]).all()
    assert user_map.map_frame(camps, []) is None


@pytest.mark.parametrize(("degrees", "turned"), [(90, True), (60, True), (-75, True), (10, False), (170, False)])
def test_a_map_that_stands_is_shown_lying_and_one_that_lies_stays(degrees, turned):
    angle, rng = np.deg2rad(degrees), np.random.default_rng(0)
    flat = rng.normal(size=(200, 2)) * [5, 1]
    xy = flat @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rotation = user_map._upright(xy)
    assert np.array_equal(rotation, np.eye(2)) != turned
    wide, high = (xy @ rotation).std(0)
    assert wide > 3 * high and np.linalg.det(rotation) == pytest.approx(1)
    assert np.array_equal(user_map._upright(rng.normal(size=(500, 2)) * [1, 1.1]), np.eye(2))  # a round map


def test_before_the_first_snapshot_there_is_no_map(tmp_path):
    session = open_study(tmp_path)
    ann = access.join(session, "Ann")
    assert (
        user_map.map_of_users(session, ann.id) is None
        and group_profiles.profiles(session) == ()
        and user_map.nearest(session, ann.id) == ()
    )
    assert user_map.experts_of(session, np.array([ann.id])) is None
    with pytest.raises(CoplError, match="no snapshot yet"):
        user_map.compare(session, ann.id, ann.id + 1)


# ---- values to colour by


def test_consistency_counts_repeated_pairs(camps):
    ann, bob = access.join(camps, "Ann"), access.join(camps, "Bob")
    labelling.set_assignment(camps, AssignmentSettings(order="random", repeats=0.95, uniform=0.04, gold=0))
    label_in_camp(camps, ann.id, SHORT, 12)  # a pair may come again after eight others
    found = user_map.consistency(camps, np.array([bob.id, ann.id]))
    assert found.n[0] == 0 and np.isnan(found.value[0])
    assert found.n[1] > 0 and found.value[1] == 1.0
    answers = label_quality.quality(camps)
    mine = next(one.figures for one in answers.people if one.user.id == ann.id)
    assert (found.n[1], found.value[1]) == (mine.consistent.n, mine.consistent.share)


def test_prequential_accuracy_of_the_map_is_that_of_each_user(camps):
    labelling.set_assignment(camps, AssignmentSettings(order="random", repeats=0, gold=0))
    people = [access.join(camps, name) for name in ("Ann", "Bob", "Cleo")]
    for person, camp in zip(people[:2], (SHORT, LONG), strict=True):
        label_in_camp(camps, person.id, camp, 8)
    found = user_map.prequential_accuracy(camps, np.array([person.id for person in people]))
    for row, person in enumerate(people):
        model = label_quality.prequential(camps, person.id, last=100).model
        assert found.n[row] == model.n
        assert found.value[row] == pytest.approx(model.share, nan_ok=True)
    assert found.n[0] > 0 and found.n[2] == 0


# ---- neighbours and comparisons


def test_the_nearest_people_are_of_ones_own_camp(camps):
    view = user_map.map_of_users(camps)
    short = of_camp(view, SHORT)
    near = user_map.nearest(camps, int(short[0]))
    assert len(near) == 5 and {one.id for one in near} <= set(short.tolist()) - {int(short[0])}
    assert all(one.same > 0.7 for one in near)
    assert [one.same for one in near] == sorted((one.same for one in near), reverse=True), "as the page shows them"
    assert user_map.nearest(camps, access.join(camps, "Nobody").id) == ()


def test_two_users_disagree_most_where_their_predicted_answers_are_furthest_apart(camps):
    view = user_map.map_of_users(camps)
    short, long = int(of_camp(view, SHORT)[0]), int(of_camp(view, LONG)[0])
    found = user_map.compare(camps, short, long)
    assert found.n_pairs == 12 and found.same < 0.2 and found.sources == ("trained", "trained")
    gaps = [abs(row.one - row.other) for row in found.pairs]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.5
    row = found.pairs[0]
    likes_first = row.one > row.other
    assert (len(row.pair.first.text) < len(row.pair.second.text)) == likes_first
    cast = {label.pair_id: label.preferred_id for label in labelling.labels_of(camps, short)}
    for row in found.pairs:
        vote = {row.pair.first.id: "first", row.pair.second.id: "second"}.get(cast.get(row.pair.id), "")
        assert row.votes[0] == vote
    turned = user_map.compare(camps, long, short)
    assert [one.pair.id for one in turned.pairs] == [one.pair.id for one in found.pairs]


def test_a_comparison_with_nobody_or_oneself_is_refused_in_a_sentence(camps):
    ann, user = access.join(camps, "Ann"), int(user_map.map_of_users(camps).ids[0])
    with pytest.raises(CoplError, match="same person was chosen twice"):
        user_map.compare(camps, user, user)
    with pytest.raises(CoplError, match="Ann has given no label"):
        user_map.compare(camps, user, ann.id)


def test_the_labels_of_some_people_are_theirs_and_all_of_them(camps):
    view = user_map.map_of_users(camps)
    few = view.ids[:3].tolist()
    rows = user_map.labels_of_users(camps, few)
    assert len(rows) == 30 and {row["annotator"] for row in rows} == set(view.names[:3].tolist())
    assert len(user_map.labels_of_users(camps, view.ids.tolist())) == 160 and user_map.labels_of_users(camps, []) == []
    assert (
        len(user_map.labels_of_users(camps, [*view.ids.tolist(), *range(10_000, 11_000)])) == 160
    )  # more than are bound


# ---- groups in words


def four_tastes(home):
    """Twenty-four users of four tastes, each with one preferred feature of the texts."""
    session = open_study(home)
    rng, rows, tastes = np.random.default_rng(0), [], list(FOUR)
    for user in range(24):
        liked = tastes[user % 4]
        for prompt in rng.permutation(20).tolist():
            a, b = rng.permutation(4)[:2].tolist()
            if rng.random() < 0.7:
                a = user % 4
                b = (a + int(rng.integers(1, 4))) % 4
            left, right = tastes[a], tastes[b]
            wins = (
                Choice.LEFT
                if left == liked
                else Choice.RIGHT
                if right == liked
                else (Choice.LEFT, Choice.RIGHT)[int(rng.integers(2))]
            )
            rows.append(
                ImportRow(
                    len(rows) + 1,
                    f"Question {prompt}?",
                    f"{FOUR[left]} {prompt}",
                    f"{FOUR[right]} {prompt}",
                    choice=wins,
                    annotator=f"user {user:02d}",
                    key=f"{user}-{prompt}",
                    kind=Kind.SIMULATED,
                    true_group=liked,
                    position_known=True,
                )
            )
    contents.import_rows(session, rows)
    return session


def test_each_groups_description_names_the_feature_that_made_it(tmp_path, tmp_path_factory):
    session = trained(four_tastes, tmp_path_factory, tmp_path / "four")
    view = user_map.map_of_users(session)
    found = group_profiles.profiles(session)
    assert len(found) == 4
    for one in found:
        (taste,) = set(view.true_groups[view.group == one.group].tolist())  # the groups are the tastes
        named = {words for statement in one.label_statements for words in (statement.words, *statement.correlated)}
        assert FEATURE_WORDS[taste][0] in named, (taste, one.label_statements)
        assert (one.people, one.others, one.by_labels.n) == (6, 18, 120)
        assert one.by_labels.effect[FEATURE_NAMES.index(taste)] > 0
        assert set(one.typical_users) <= set(view.ids[view.group == one.group].tolist()) and one.typical_users


def test_a_language_model_is_marked_as_one(camps):
    pair = contents.pair(camps, camps.store.pairs(camps.id)[0][0])
    row = ImportRow(1, pair.prompt, pair.first.text, pair.second.text, Choice.LEFT, "gpt-4", key="m", kind=Kind.MODEL)
    contents.import_rows(camps, [row])
    view = user_map.map_of_users(camps)
    [judge] = np.flatnonzero(view.models)
    assert view.marked_name(judge) == "gpt-4 (language model)" and not view.placed[judge]
    assert view.kinds[judge] == Kind.MODEL and set(view.kinds[~view.models].tolist()) <= {"human", "simulated"}


def test_typical_pairs_are_those_on_which_the_group_differs_with_its_votes(camps):
    view = user_map.map_of_users(camps)
    for one in group_profiles.profiles(camps):
        members = view.ids[view.group == one.group].tolist()
        gaps = [abs(pair.inside - pair.outside) for pair in one.pairs]
        assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.4
        pair = one.pairs[0]
        cast = [
            label.preferred_id
            for label in camps.store.labels(camps.id, pair_id=pair.pair.id)
            if label.user_id in members
        ]
        assert pair.votes == (cast.count(pair.pair.first.id), cast.count(pair.pair.second.id))


def test_group_profiles_are_computed_once_per_snapshot(camps):
    assert group_profiles.profiles(camps) is group_profiles.profiles(camps)


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


def test_only_the_viewer_is_positioned_without_a_fit(trained):
    ann = access.join(trained, "Ann")
    label_in_camp(trained, ann.id, LONG, 4)
    still, live = user_map.map_of_users(trained), user_map.map_of_users(trained, ann.id)
    row = int(still.rows([ann.id])[0])
    assert still.me is None and not still.placed[row] and still.group[row] == -1 and still.n_labels[row] == 0
    assert live.me == row and live.my_source == "neighbours" and live.n_labels[row] == 4 and live.placed[row]


def test_group_numbers_and_positions_survive_a_refit(trained):
    before = user_map.map_of_users(trained)
    contents.import_rows(trained, camp_labels(seed=1, per_user=4))
    fit_graph_now(trained)
    after = user_map.map_of_users(trained)
    assert after.ids.tolist() == before.ids.tolist() and after.group.tolist() == before.group.tolist()
    where = np.hstack([before.xy, after.xy])
    size = np.linalg.norm(where[:, :2] - where[:, :2].mean(0), axis=1).mean()
    assert np.linalg.norm(where[:, :2] - where[:, 2:], axis=1).mean() < size
