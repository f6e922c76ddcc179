"""The map beside a sentence: points in the unit square, one's own place, one preparation per snapshot."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.records import Choice
from copl_core.study import access, labelling, small_map
from tests.worlds import trained, two_camps


@pytest.fixture
def camps(tmp_path, tmp_path_factory):
    return trained(two_camps, tmp_path_factory, tmp_path / "camps")


def test_every_person_with_a_place_is_a_point_in_the_unit_square(camps):
    ann = access.join(camps, "Ann")
    points, position = small_map.small_map(camps, ann.id)
    assert len(points.xy) == 16 and ((points.xy >= 0) & (points.xy <= 1)).all()
    layout = camps.snapshot().layout
    placed = [points.place(tuple(xy)) for xy in layout.xy.tolist()]
    assert np.allclose(sorted(placed), sorted(map(tuple, points.xy.tolist())), atol=1e-5)
    assert position.n_labels == 0 and position.xy is None
    assert points.kind.tolist() == ["simulated"] * 16


def test_each_answer_moves_the_star_and_the_points_are_made_once(camps):
    ann = access.join(camps, "Ann")
    places, kept = [], []
    for _ in range(4):
        labelling.submit(camps, labelling.next_task(camps, ann.id).id, ann.id, Choice.LEFT)
        points, position = small_map.small_map(camps, ann.id)
        places.append(points.place(position.xy))
        kept.append(points)
    assert len(set(places)) > 1 and all(one is kept[0] for one in kept)


def test_simulated_people_leave_the_small_map_with_the_others(camps):
    ann = access.join(camps, "Ann")
    assert small_map.small_map(camps, ann.id) is not None
    access.include_simulated(camps, False)
    assert small_map.small_map(camps, ann.id) is None


def test_without_a_snapshot_there_is_no_map(tmp_path):
    session = two_camps(tmp_path)
    assert small_map.small_map(session, access.join(session, "Ann").id) is None
