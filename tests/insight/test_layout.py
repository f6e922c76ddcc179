"""The map: who is on it, which groups there are, and its stability."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic import Protocol, make_world
from copl_core.insight import landmarks
from copl_core.insight.groups import MOST_GROUPS, NO_GROUP, find_groups, renumber
from copl_core.insight.layout import Layout, answer_space, fit_layout, flat_rotation, turned_flat, turned_like
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK
from tests.worlds import graph_state

DIM = 6


@pytest.fixture(scope="module")
def camps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, embeddings and true camps of 24 users in three camps far apart; ids are not rows."""
    rng = np.random.default_rng(0)
    camp = np.repeat([0, 1, 2], 8)
    centres = rng.normal(size=(3, DIM)) * 4
    return np.arange(24) * 3 + 2, (centres[camp] + rng.normal(scale=0.3, size=(24, DIM))).astype(np.float32), camp


@pytest.fixture(scope="module")
def first(camps) -> Layout:
    ids, vectors, _ = camps
    return fit_layout(ids, vectors, np.ones(24))


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    together = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(together) == len(set(one.tolist())) == len(set(other.tolist()))


def test_camps_become_groups_and_are_apart_on_the_map(camps, first):
    _, _, camp = camps
    assert same_partition(first.group, camp)
    assert first.silhouette > 0.7 and first.parameters["k"] == 3
    means = np.array([first.xy[camp == c].mean(0) for c in range(3)])
    spread = max(np.linalg.norm(first.xy[camp == c] - means[c], axis=1).mean() for c in range(3))
    apart = min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > 2 * spread


def test_two_camps_give_two_groups(camps):
    ids, vectors, camp = camps
    two = camp < 2
    assert same_partition(fit_layout(ids[two], vectors[two], np.ones(16)).group, camp[two])


def test_users_without_labels_have_neither_place_nor_group(camps):
    ids, vectors, _ = camps
    n_labels = np.where(np.arange(24) % 5 == 0, 0, 3)
    found = fit_layout(ids, vectors, n_labels)
    without = n_labels == 0
    assert np.isnan(found.xy[without]).all() and (found.group[without] == NO_GROUP).all()
    assert np.isfinite(found.xy[~without]).all() and (found.group[~without] >= 0).all()


def test_an_added_user_without_labels_moves_nobody(camps, first):
    ids, vectors, _ = camps
    found = fit_layout(np.append(ids, 999), np.vstack([vectors, np.ones(DIM)]), np.append(np.ones(24), 0))
    assert np.array_equal(found.xy[:24], first.xy) and np.array_equal(found.group[:24], first.group)


def test_a_refit_keeps_positions_and_group_numbers_even_when_the_space_is_rotated_and_mirrored(camps, first):
    ids, vectors, _ = camps
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(DIM, DIM)))[0] @ np.diag([-1] + [1] * (DIM - 1))
    order = np.random.default_rng(2).permutation(24)
    again = fit_layout(ids[order], (vectors @ turned)[order].astype(np.float32), np.ones(24), previous=first, seed=5)
    assert np.array_equal(again.group, first.group[order])
    moved = np.linalg.norm(again.xy - first.xy[order], axis=1)
    size = np.linalg.norm(first.xy - first.xy.mean(0), axis=1).mean()
    assert moved.mean() < 0.35 * size  # a map drawn afresh moves its people by more than their mean distance


def test_a_mirrored_and_shifted_map_is_aligned_exactly(first):
    from copl_core.insight.layout import _align

    mirrored = replace(
        first, xy=(first.xy @ np.array([[0, 1], [1, 0]]) + 40).astype(np.float32), group=(first.group + 1) % 3
    )
    back = _align(mirrored, first)
    assert np.allclose(back.xy, first.xy, atol=1e-3)
    assert np.array_equal(back.group, first.group)


def test_a_new_group_takes_a_free_number_and_the_old_ones_keep_theirs(camps, first):
    ids, vectors, camp = camps
    newcomers = np.full((8, DIM), -9, np.float32) + np.random.default_rng(3).normal(scale=0.3, size=(8, DIM))
    found = fit_layout(
        np.append(ids, np.arange(500, 508)),
        np.vstack([vectors, newcomers]).astype(np.float32),
        np.ones(32),
        previous=first,
    )
    assert np.array_equal(found.group[:24], first.group)
    assert set(found.group[24:].tolist()) == {3}


def test_a_group_that_dissolves_leaves_the_numbers_of_the_others_alone(camps, first):
    ids, vectors, camp = camps
    gone = first.group[camp == 0][0]
    rest = camp != 0
    found = fit_layout(ids[rest], vectors[rest], np.ones(16), previous=first)
    assert np.array_equal(found.group, first.group[rest])
    assert gone not in found.group


@pytest.mark.parametrize("stay", [0, 1, 3, 10], ids=lambda n: f"{n} stay")
def test_people_who_leave_and_come_back_find_their_group_numbers_and_positions(camps, first, stay, tmp_path):
    """As when simulated people are switched off and on again, with a map of the few others in between."""
    ids, vectors, camp = camps
    few = np.argsort(camp == 1, kind="stable")[::-1][:stay]  # of the second camp first
    other = (np.arange(3) + 900, np.random.default_rng(4).normal(size=(3, DIM)).astype(np.float32))
    between = first
    for seed in (1, 2):
        between = fit_layout(
            np.append(ids[few], other[0]),
            np.vstack([vectors[few], other[1]]),
            np.ones(stay + 3),
            previous=between,
            seed=seed,
        )
        between.save(tmp_path)
        between = Layout.load(tmp_path)
    again = fit_layout(ids, vectors, np.ones(24), previous=between, seed=3)
    assert np.array_equal(again.group, first.group)
    size = np.linalg.norm(first.xy - first.xy.mean(0), axis=1).mean()
    assert np.linalg.norm(again.xy - first.xy, axis=1).mean() < 0.5 * size


def test_the_few_who_stay_keep_the_number_of_their_group(camps, first):
    ids, vectors, camp = camps
    for kept in range(3):
        rows = np.flatnonzero(camp == kept)[:3]
        found = fit_layout(ids[rows], vectors[rows], np.ones(3), previous=first)
        assert found.group.tolist() == [first.group[rows[0]]] * 3


def test_a_new_group_takes_no_number_of_people_who_are_away(camps, first):
    ids, vectors, _ = camps
    others = fit_layout(np.arange(500, 524), vectors, np.ones(24), previous=first)
    assert sorted(set(others.group.tolist())) == [3, 4, 5]
    both = fit_layout(np.append(ids, others.user_ids), np.vstack([vectors, -vectors]), np.ones(48), previous=others)
    assert np.array_equal(both.group[:24], first.group) and np.array_equal(both.group[24:], others.group)


def test_many_new_groups_without_anybody_known_still_have_numbers_of_their_own():
    used = np.arange(MOST_GROUPS)
    found = renumber(np.array([0, 1, 2, NO_GROUP]), np.array([1]), np.array([4]), used)
    assert found[1] == 4 and found[3] == NO_GROUP and len(set(found.tolist())) == 4 and found.max() < MOST_GROUPS


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 7])
def test_few_users_have_a_map_and_one_group(n, camps):
    ids, vectors, _ = camps
    found = fit_layout(ids[:n], vectors[:n], np.ones(n))
    assert np.isfinite(found.xy).all() and (found.group == 0).all() and np.isnan(found.silhouette)
    assert len(np.unique(found.xy, axis=0)) == n  # nobody stands on anybody
    again = fit_layout(ids[: n + 1], vectors[: n + 1], np.ones(n + 1), previous=found)
    assert np.isfinite(again.xy).all()


def test_people_who_are_all_alike_are_one_group():
    same = np.ones((12, DIM), np.float32)
    found = fit_layout(np.arange(12), same, np.ones(12))
    assert (found.group == 0).all() and np.isnan(found.silhouette) and np.isfinite(found.xy).all()


def test_the_same_seed_gives_the_same_map(camps, first):
    ids, vectors, _ = camps
    again = fit_layout(ids, vectors, np.ones(24))
    assert np.array_equal(again.xy, first.xy) and np.array_equal(again.xyz, first.xyz)
    assert np.array_equal(again.group, first.group)


def test_a_map_reads_back_as_it_was_saved(first, tmp_path):
    for layout in (first, replace(first, silhouette=float("nan"))):
        layout.save(tmp_path)
        back = Layout.load(tmp_path)
        assert np.array_equal(back.user_ids, layout.user_ids) and np.array_equal(back.xy, layout.xy)
        assert np.array_equal(back.xyz, layout.xyz)
        assert np.array_equal(back.group, layout.group) and back.parameters == layout.parameters
        assert back.silhouette == pytest.approx(layout.silhouette, nan_ok=True)


def test_distance_between_people_is_how_differently_they_would_answer():
    state = graph_state(n_users=6)
    vectors = state.user_vectors @ answer_space(state)
    labels = state.labels
    apart = state.response_vectors[labels.left] - state.response_vectors[labels.right]
    for one, other in ((0, 1), (2, 5)):
        differences = (state.user_vectors[one] - state.user_vectors[other]) @ apart.T / state.temperature
        distance = np.linalg.norm(vectors[one] - vectors[other])
        assert distance == pytest.approx(np.sqrt((differences**2).mean()), rel=1e-3)


def test_where_no_answer_depends_on_people_they_are_one_group():
    state = graph_state(n_users=9)
    flat = replace(state, response_vectors=state.response_vectors * 0)
    found = fit_layout(flat.user_ids, flat.user_vectors @ answer_space(flat), flat.n_labels)
    assert (found.group == 0).all() and np.isfinite(found.xy).all()


def test_drawing_a_map_leaves_the_threads_of_torch_alone(camps):
    import torch

    ids, vectors, _ = camps
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fit_layout(ids, vectors, np.ones(24))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


# ---- groups


def four_tastes(few: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vectors, labels behind each, taste): people with ``few`` labels have a quarter of the length, as a fit gives."""
    taste = np.arange(120) % 4
    n_labels = np.where(np.arange(120) < few, 3, 30)
    centres = np.array([[1, 1, 0], [1, -1, 0], [-1, 0, 1], [-1, 0, -1]])
    vectors = centres[taste] * np.where(n_labels < 10, 0.25, 1)[:, None] + rng.normal(scale=0.12, size=(120, 3))
    return vectors.astype(np.float32), n_labels, taste


def test_people_with_few_labels_do_not_hide_the_groups():
    vectors, n_labels, taste = four_tastes(60, np.random.default_rng(0))
    found = find_groups(vectors, n_labels)
    known = n_labels > 10
    assert same_partition(found.group[known], taste[known]) and max(found.tried, key=found.tried.get) == 4


def test_a_number_of_groups_is_kept_unless_another_is_clearly_better():
    vectors, n_labels, _ = four_tastes(0, np.random.default_rng(0))
    assert find_groups(vectors, n_labels, before=3).group.max() == 3  # four are clearly better
    one_cloud = np.random.default_rng(0).normal(size=(200, 4))
    tried = find_groups(one_cloud, np.ones(200)).tried
    close = [k for k, score in tried.items() if score > max(tried.values()) - 0.02]
    for k in close:
        assert find_groups(one_cloud, np.ones(200), before=k).group.max() == k - 1


def test_groups_of_a_world_of_four_tastes_are_its_tastes():
    from sklearn.metrics import adjusted_rand_score

    world = make_world(Protocol(users=160, prompts=60, labels=30, test=0, noise=0.1, text="informative"), 0)
    state = fit_graph(world.data, world.phi, QUICK.with_settings(l2=6.0, max_steps=120), seed=0)
    found = fit_layout(state.user_ids, state.user_vectors @ answer_space(state), state.n_labels)
    assert adjusted_rand_score(world.group, found.group) > 0.95


# ---- in three dimensions


def test_camps_stand_apart_in_three_dimensions_and_stay_put(camps, first):
    ids, vectors, camp = camps
    assert first.xyz.shape == (24, 3)
    means = np.array([first.xyz[camp == c].mean(0) for c in range(3)])
    spread = max(np.linalg.norm(first.xyz[camp == c] - means[c], axis=1).mean() for c in range(3))
    assert min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 2 * spread
    again = fit_layout(ids, vectors, np.ones(24), previous=first)
    assert (
        np.linalg.norm(again.xyz - first.xyz, axis=1).mean()
        < 0.35 * np.linalg.norm(first.xyz - first.xyz.mean(0), axis=1).mean()
    )


def test_a_map_of_before_there_was_a_third_dimension_is_read_and_followed(camps, first, tmp_path):
    ids, vectors, _ = camps
    replace(first, xyz=None).save(tmp_path)
    old = Layout.load(tmp_path)
    assert old.xyz is None
    following = fit_layout(ids, vectors, np.ones(24), previous=old)
    assert np.isfinite(following.xyz).all() and np.array_equal(following.group, first.group)


# ---- very many people, and how long one waits


@pytest.fixture
def crowd() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, embeddings and camps of 900 users in four camps."""
    rng = np.random.default_rng(0)
    camp = rng.integers(0, 4, 900)
    vectors = rng.normal(size=(4, DIM))[camp] * 3 + rng.normal(scale=0.4, size=(900, DIM))
    return rng.permutation(900) * 7 + 1, vectors.astype(np.float32), camp


def test_of_very_many_people_some_are_fitted_and_the_rest_stand_among_their_like(crowd, monkeypatch):
    monkeypatch.setattr(landmarks, "MOST_FITTED", 200)
    monkeypatch.setattr(landmarks, "_CHUNK", 150)
    ids, vectors, camp = crowd
    n_labels = np.where(np.arange(900) % 10 == 0, 0, 5)
    found = fit_layout(ids, vectors, n_labels)
    assert (found.parameters["fitted"], found.parameters["placed"]) == (200, 610)
    known = n_labels > 0
    assert np.isfinite(found.xy[known]).all() and np.isfinite(found.xyz[known]).all()
    assert np.isnan(found.xy[~known]).all() and (found.group[~known] == NO_GROUP).all()
    assert same_partition(found.group[known], camp[known])
    centres = np.stack([found.xy[known & (camp == c)].mean(0) for c in range(4)])
    nearest = np.linalg.norm(found.xy[known][:, None] - centres, axis=2).argmin(1)
    assert (nearest == camp[known]).all()


def test_a_refit_of_very_many_people_keeps_their_positions_and_groups(crowd, monkeypatch):
    monkeypatch.setattr(landmarks, "MOST_FITTED", 200)
    ids, vectors, _ = crowd
    before = fit_layout(ids, vectors, np.ones(900))
    now = fit_layout(ids[::-1], vectors[::-1], np.ones(900), previous=before)
    assert np.array_equal(now.group[::-1], before.group)
    size = np.linalg.norm(before.xy - before.xy.mean(0), axis=1).mean()
    assert np.linalg.norm(now.xy[::-1] - before.xy, axis=1).mean() < 0.35 * size


def test_the_same_people_are_landmarks_after_others_have_come():
    few, many = np.arange(5000) * 3, np.arange(5100) * 3
    first, second = few[landmarks.choose(few, 1000)], many[landmarks.choose(many, 1000)]
    assert len(first) == len(second) == 1000 and len(np.intersect1d(first, second)) > 950
    order = np.random.default_rng(0).permutation(5000)
    assert set(few[order][landmarks.choose(few[order], 1000)]) == set(first)
    assert np.array_equal(landmarks.choose(few, 5000), np.arange(5000))


def test_who_equals_a_landmark_is_placed_at_it_and_between_two_in_the_middle():
    corners, where = np.eye(3, dtype=np.float32), np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    at, between = landmarks.place(np.array([[1, 0, 0], [0.5, 0.5, 0]]), corners, [where])[0]
    assert np.linalg.norm(at) < 0.35 and between[0] > 0.35 and between[0] > between[1]


def test_a_first_map_lies_flat(first):
    for positions in (first.xy, first.xyz):
        spread = positions - positions.mean(0)
        cross = spread.T @ spread
        assert cross[0, 0] == cross.max() and np.abs(cross - np.diag(np.diag(cross))).max() < 1e-3 * cross.max()


def test_turning_a_map_keeps_distances_and_sides(first):
    turned = turned_flat(replace(first, xy=first.xy @ np.array([[0.6, 0.8], [-0.8, 0.6]], np.float32)))
    assert np.allclose(
        np.linalg.norm(np.diff(turned.xy, axis=0), axis=1), np.linalg.norm(np.diff(first.xy, axis=0), axis=1), rtol=1e-3
    )
    assert np.linalg.det(flat_rotation(first.xy @ np.array([[0.0, 1], [-1, 0]]))) == pytest.approx(1)


@pytest.mark.parametrize("again", [False, True])
def test_the_progress_of_a_map_goes_from_nothing_to_all_and_an_error_of_it_ends_the_fit(camps, first, again):
    ids, vectors, _ = camps
    seen: list[float] = []
    fit_layout(ids, vectors, np.ones(24), previous=first if again else None, progress=seen.append)
    assert seen == sorted(seen) and (seen[0], seen[-1]) == (0, 1) and len(seen) > 6
    for after in (1, 3, len(seen) - 1):
        left = iter(range(after))

        def stop(done: float, left=left) -> None:
            if next(left, None) is None:
                raise InterruptedError("cancelled")

        with pytest.raises(InterruptedError, match="cancelled"):
            fit_layout(ids, vectors, np.ones(24), previous=first if again else None, progress=stop)


def test_a_map_made_from_nothing_takes_only_the_frame_and_the_numbers_of_an_earlier_one():
    rng = np.random.default_rng(0)
    ids, shape = np.arange(40), rng.normal(size=(40, 2)).astype(np.float32)
    group = np.repeat([0, 1], 20)
    quarter = np.array([[0, -1], [1, 0]], np.float32)
    places = np.vstack([shape @ quarter, [[9, 9]]]).astype(np.float32)
    before = Layout(np.arange(41), places, np.append(group, 1), 0.5, {})
    new = turned_like(Layout(ids, shape, 1 - group, 0.5, {}), before.without_users([40]))
    assert new.group.tolist() == group.tolist() and new.absent is None
    assert np.allclose(new.xy, before.xy[:40], atol=1e-4)
    other = turned_like(Layout(ids, rng.normal(size=(40, 2)).astype(np.float32), group, 0.5, {}), before)
    own = rng.normal(size=(40, 2)).astype(np.float32)
    kept = turned_like(Layout(ids, own, group, 0.5, {}), before).xy
    apart, turned = (np.linalg.norm(xy[:, None] - xy[None], axis=-1) for xy in (own, kept))
    assert np.allclose(turned / turned.max(), apart / apart.max(), atol=1e-3)  # its own shape
    assert other.absent is not None and other.absent.user_ids.tolist() == [40]  # unless they are taken out before
