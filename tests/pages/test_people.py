"""People: the map, the selection and its labels, the groups, neighbours and comparisons."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from copl_core.insight.found_features import Gain
from copl_core.records import CoplError, Role
from copl_core.snapshots.snapshot import write_snapshot
from copl_core.study import access, contents, found_features, group_names, group_profiles, labelling, runs, user_map
from copl_core.study.found_features import FoundFeaturesView, Preferred
from copl_core.study_settings import AssignmentSettings
from pages.common import NO_GROUP_COLOUR, group_colour
from tests.worlds import LONG, SHORT, label_in_camp


@pytest.fixture
def rita(camps):
    return access.join(camps, "Rita", Role.RESEARCHER)


def drawn_around(session, *names: str) -> dict:
    """What the map reports when these people are drawn around: ids travel with the points."""
    ids = {user.name: user.id for user in access.users(session)}
    points = [{"curve_number": i, "point_index": 0, "customdata": [ids[name], 10]} for i, name in enumerate(names)]
    return {"selection": {"points": points, "point_indices": [0] * len(points), "box": [], "lasso": []}}


def text(page, words) -> str:
    return words(page) + "\n".join(str(one.value) for one in page.dataframe)


# ---- the map


def test_before_the_first_snapshot_the_page_says_what_will_come(session, owner, open_page, words):
    page = open_page("people", session, owner)
    assert "comes from a snapshot, and there is none yet" in words(page) and not page.selectbox


def test_the_map_says_where_one_stands_what_is_shown_and_what_means_nothing(camps, rita, open_page, words):
    label_in_camp(camps, rita.id, SHORT, 1)
    label_in_camp(camps, rita.id, LONG, 1)
    shown = words(open_page("people", camps, rita))
    profile = words(open_page("taste", camps, rita))
    unclear = next(line for line in shown.splitlines() if "Your 2 labels do not clearly fit one group yet." in line)
    assert unclear.split("yet. ")[1].rstrip(".") in profile, "one figure on both pages"
    label_in_camp(camps, rita.id, SHORT, 10)
    shown = words(open_page("people", camps, rita))
    assert "2 groups of people who answer alike. By your 12 labels you answer most like the group **" in shown
    assert "% of them are in this group" in shown and "% sure" not in shown
    assert "Distances between clusters, their sizes and the directions have no meaning" in shown
    assert "Snapshot v0001, 160 labels" in shown and "open points are simulated people" in shown
    assert "silhouette" in shown and "n_neighbors" in shown and "seed 0" in shown


def test_a_damaged_snapshot_is_reported_in_a_sentence_and_another_can_be_chosen(two_snapshots, open_page, words):
    rita = access.join(two_snapshots, "Rita", Role.RESEARCHER)
    shutil.rmtree(two_snapshots.snapshot_root / "v0002" / "layout")
    page = open_page("people", two_snapshots, rita)
    assert len(page.error) == 1 and "v0002" in page.error[0].value and "choose another snapshot" in page.error[0].value
    page.select_slider(key="snapshot").set_value("v0001").run()
    assert not page.exception and not page.error and "The earlier snapshot v0001 has 2 groups" in words(page)


@pytest.mark.parametrize(
    ("by", "explanation"),
    [
        ("labels", "the number of labels behind a position"),
        ("kind", "distinguish humans from simulated"),
        ("true_group", "the model never sees them"),
        ("consistency", "repeated pairs"),
        ("predicted", "predicted correctly beforehand"),
    ],
)
def test_people_are_coloured_by_what_is_chosen_and_the_colour_is_explained(
    camps, rita, open_page, words, by, explanation
):
    labelling.set_assignment(camps, AssignmentSettings(order="random", repeats=0.95, uniform=0.04, gold=0))
    label_in_camp(camps, rita.id, SHORT, 12)
    assert explanation in words(open_page("people", camps, rita, colour=by))


@pytest.mark.parametrize("in_3d", [False, True])
def test_points_that_wear_a_number_have_a_legend_of_one_colour_that_hides_them(camps, in_3d):
    from pages.people_map import colouring, picture

    view = user_map.map_of_users(camps)
    traces = picture(view, colouring(camps, view, "labels"), in_3d=in_3d).data
    points = [trace for trace in traces if trace.marker.coloraxis]
    legend = {trace.legendgroup: trace.marker.color for trace in traces if trace.showlegend is not False}
    assert points and all(trace.showlegend is False for trace in points)
    assert all(str(legend[trace.legendgroup]).startswith("#") for trace in points)


@pytest.mark.parametrize(
    ("by", "missing"),
    [
        ("expert", "no reward model"),
        ("consistency", "Nobody has answered a pair a second time"),
        ("predicted", "No answer to a randomly drawn pair has a prediction"),
    ],
)
def test_where_there_is_nothing_to_colour_by_the_map_says_so_and_is_drawn_by_group(
    camps, rita, open_page, words, by, missing
):
    page = open_page("people", camps, rita, colour=by)
    assert missing in page.info[0].value and "coloured by group" in page.info[0].value


def test_an_old_snapshot_without_a_third_dimension_is_shown_flat_and_says_so(camps, rita, open_page, words):
    now = camps.snapshot()
    write_snapshot(
        camps.snapshot_root,
        "v0002",
        graph=now.graph,
        layout=replace(now.layout, xyz=None),
        manifest={"watermark": now.watermark, "reward": None},
    )
    camps.store.publish(camps.id, replace(runs.snapshots(camps)[0], version="v0002"), run_id=None)
    page = open_page("people", camps, rita, dimensions="3-D")
    assert any("no map in three dimensions" in one.value for one in page.info)


def test_the_map_in_three_dimensions_is_shown(camps, rita, open_page, words):
    assert "drag to rotate the map" in words(open_page("people", camps, rita, dimensions="3-D"))


def test_the_page_says_how_true_groups_of_simulated_people_and_groups_of_the_map_go_together(
    camps, rita, open_page, words
):
    shown = words(open_page("people", camps, rita))
    assert "The 16 simulated people were made with 2 tastes" in shown and "it finds 2 groups, each with most" in shown
    with camps.store.engine.begin() as database:  # as if some of one camp had been made with a taste of their own
        database.exec_driver_sql(
            "UPDATE user SET taste = 'brief' WHERE taste = 'short' AND name IN ('user 00', 'user 02')"
        )
    shown = words(open_page("people", camps, rita))
    assert "made with 3 tastes" in shown and "“brief” and “short” answer so alike" in shown


def test_playing_replaces_the_map_by_a_film_and_stopping_brings_it_back(camps, rita, two_snapshots, open_page, words):
    assert "With more snapshots, a slider here" in words(open_page("people", camps, rita))
    page = open_page("people", two_snapshots, access.join(two_snapshots, "Rita", Role.RESEARCHER))
    assert "drag around people" in words(page)
    page.button(key="play").click().run()
    assert "on the way through the snapshots" in words(page) and "drag around people" not in words(page)
    page.button(key="stop").click().run()
    assert page.button(key="play") is not None and "drag around people" in words(page) and not page.exception


def test_people_of_the_film_go_straight_from_one_snapshot_to_the_next():
    from pages.people_film import _moments

    xy = np.array([[[0, 0], [1, 1], [np.nan] * 2], [[2, 4], [np.nan] * 2, [5, 5]]])
    moments = dict(_moments(["v1", "v2"], xy, 4))
    assert list(moments) == ["v1", "v1 1", "v1 2", "v1 3", "v2"]
    first = np.array([one[0] for one in moments.values()])
    assert np.array_equal(first[[0, 2, 4]], [[0, 0], [1, 2], [2, 4]]) and (np.diff(first, axis=0) > 0).all()
    leaves, joins = (np.array([np.isfinite(one[row, 0]) for one in moments.values()]) for row in (1, 2))
    assert leaves.tolist() == [True] * 4 + [False] and joins.tolist() == [False] * 4 + [True]


def test_a_film_has_every_person_in_every_frame_and_a_slider_of_its_snapshots(two_snapshots, monkeypatch):
    from pages import people_film

    monkeypatch.setattr(people_film, "group_name", str)
    view = user_map.map_of_users(two_snapshots)
    frame = user_map.map_frame(two_snapshots, ["v0001", "v0002"])
    figure = people_film.film(view, frame)
    assert sum(len(trace.x) for trace in figure.data) == len(frame.ids) == 16
    assert len(figure.frames) == people_film.MOST_STEPS + 1
    assert [step.label for step in figure.layout.sliders[0].steps] == ["v0001", "v0002"]
    assert {step.args[0][0] for step in figure.layout.sliders[0].steps} <= {one.name for one in figure.frames}
    shapes = [len(trace.x) for trace in figure.data]
    assert all([len(trace.x) for trace in one.data] == shapes for one in figure.frames)
    assert [len(one) for one in (figure.data[0].x, figure.frames[-1].data[0].x)] == [shapes[0]] * 2


def test_a_film_of_many_people_has_fewer_steps_and_of_very_many_there_is_none():
    from pages.people_film import MOST_NUMBERS, can_play, chosen_snapshots

    def frame(snapshots: int, people: int) -> user_map.MapFrame:
        empty = np.empty((0, 0, 2), np.float32)
        names = tuple(f"v{number}" for number in range(snapshots))
        return user_map.MapFrame(names, np.eye(2), np.zeros((2, 5)), np.arange(people), empty, np.zeros(people, int))

    for snapshots, people in ((30, 10), (30, 2000), (30, 10_000), (2, 10_000), (30, 100_000)):
        shown, steps = chosen_snapshots(frame(snapshots, people))
        assert (shown[0], shown[-1]) == (0, snapshots - 1) and steps >= 1
        assert people * (len(shown) - 1) * steps <= MOST_NUMBERS and can_play(frame(snapshots, people))
    assert not can_play(frame(30, 1_000_000)) and not can_play(frame(1, 10))


def test_on_a_phone_a_finger_moves_the_map_and_a_flat_map_is_no_higher_than_it_needs(camps):
    from pages.people_map import colouring, map_height, picture

    view = user_map.map_of_users(camps)
    by_mouse, by_finger = (picture(view, colouring(camps, view, "kind"), touch=touch) for touch in (False, True))
    assert (by_mouse.layout.dragmode, by_finger.layout.dragmode) == ("lasso", "pan")
    flat, high = (np.array([[0, 0, 0, 0, 0], [10, height, 0, 0, 0]]) for height in (3, 30))
    assert map_height(flat, False) < map_height(high, False) and map_height(high, True) < map_height(high, False)


def test_browsers_of_phones_are_known():
    from pages.common import TOUCH

    assert TOUCH.search("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148")
    assert not TOUCH.search("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36")


def test_groups_have_names_and_an_owner_may_give_them_others(camps, rita, open_page, words):
    made = group_names.names(camps)
    shown = words(open_page("people", camps, rita))
    assert all(f"**{name}** · Group {number + 1} · 8 people" in shown for number, name in made.items())
    page = open_page("people", camps, access.join(camps, "Olga", Role.OWNER))
    page.text_input(key="group-name-0").set_value(" Engineers ").run()
    assert not page.exception and "**Engineers** · Group 1 · 8 people" in words(page)
    assert group_names.names(camps)[0] == "Engineers" == page.text_input(key="group-name-0").value
    page.text_input(key="group-name-1").set_value("engineers").run()
    assert "Another group is named" in page.error[0].value and group_names.names(camps)[1] == made[1]
    page.text_input(key="group-name-0").set_value("").run()
    assert group_names.names(camps) == made


def test_only_owners_see_the_field_for_a_groups_name(camps, rita, open_page):
    page = open_page("people", camps, rita)
    assert not [one for one in page.text_input if str(one.key).startswith("group-name")]


# ---- from the map to the rows


def test_a_selection_leads_to_the_people_their_labels_and_files(camps, rita, open_page, words):
    page = open_page("people", camps, rita, **{"map-0": drawn_around(camps, "user 02", "user 05")})
    shown = words(page)
    assert (
        "2 people selected" in shown
        and "Their 20 labels" in shown
        and "1 in **Short" in shown
        and "1 in **Long" in shown
    )
    people, labels = page.dataframe[0].value, page.dataframe[1].value
    assert set(people["person"]) == {"user 02", "user 05"} and set(people["kind"]) == {"simulated"}
    assert len(labels) == 20 and set(labels["person"]) == {"user 02 (simulated)", "user 05 (simulated)"}
    ids = ",".join(str(user.id) for user in access.users(camps) if user.name in ("user 02", "user 05"))
    assert page.query_params["people"] == ids
    files = [one.proto for one in page.get("download_button") if one.proto.label.startswith("Their labels as")]
    assert [one.help for one in files] == ["One row per label, with the names of people, texts, reasons and times."] * 2


def test_a_selection_is_described_by_what_its_people_prefer(camps, rita, open_page, words):
    short = [f"user {number:02}" for number in range(0, 16, 2)]
    shown = words(open_page("people", camps, rita, **{"map-0": drawn_around(camps, *short)}))
    assert "**What they prefer:** **" in shown and "shorter answers" in shown
    assert "decided labels of 8 people against 8 others" in shown
    few = words(open_page("people", camps, rita, **{"map-0": drawn_around(camps, *short[:2])}))
    assert "2 people with labels in the snapshot and leaves 14 others" in few and "three or more" in few


def test_a_mixed_selection_has_nothing_in_common(camps, rita, open_page, words):
    mixed = [f"user {number:02}" for number in range(8)]
    shown = words(open_page("people", camps, rita, **{"map-0": drawn_around(camps, *mixed)}))
    assert "**What they prefer:** nothing measured distinguishes them" in shown


def test_people_are_listed_by_name(camps, rita, open_page):
    names = open_page("people", camps, rita).selectbox(key="found").options
    assert names == ["Rita", *sorted(names[1:])] and len(names) == 17


def test_the_files_hold_every_label_of_the_selected(camps):
    ids = tuple(user.id for user in access.users(camps)[:2])
    for form, read in (("CSV", pd.read_csv), ("Parquet", pd.read_parquet)):
        frame = read(io.BytesIO(user_map.labels_file(camps, ids, form)))
        assert len(frame) == 20 and {"annotator", "prompt", "response_a", "response_b", "choice"} <= set(frame.columns)
        assert sorted(frame["label_key"]) == sorted(
            row["label_key"] for row in contents.export(camps) if row["annotator"] in set(frame["annotator"])
        )


def test_a_link_carries_the_selection_the_colour_and_the_person(camps, rita, open_page, words):
    from streamlit.testing.v1 import AppTest

    from tests.pages.conftest import ROOT

    ids = [user.id for user in access.users(camps) if user.name in ("user 01", "user 03", "user 04")]
    page = AppTest.from_file(str(ROOT / "pages" / "people.py"), default_timeout=30)
    page.session_state["session"], page.session_state["user"] = camps, rita
    page.query_params["people"] = ",".join(map(str, ids)) + ",999999"
    page.query_params["colour"], page.query_params["person"] = "labels", str(ids[0])
    page.run()
    assert not page.exception and "3 people selected" in words(page)
    assert page.selectbox(key="colour").value == "labels" and page.selectbox(key="found").value == ids[0]
    page.button(key="forget").click().run()
    assert "selected" not in words(page) and "people" not in page.query_params


def test_invalid_values_in_a_link_are_ignored(camps, rita, open_page, words):
    from streamlit.testing.v1 import AppTest

    from tests.pages.conftest import ROOT

    page = AppTest.from_file(str(ROOT / "pages" / "people.py"), default_timeout=30)
    page.session_state["session"], page.session_state["user"] = camps, rita
    for name, value in {
        "people": "x,-1,99999999999999999999",
        "colour": "mauve",
        "snapshot": "v9999",
        "person": "7e9",
        "with": "0",
    }.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception and not page.error and "selected" not in words(page)


# ---- groups, one person, and two


def test_each_group_is_described_by_its_features_pairs_and_people(camps, rita, open_page, words):
    page = open_page("people", camps, rita, **{"profile-0": True, "profile-1": True})
    shown = words(page)
    assert shown.count("· 8 people") == shown.count("By their labels, they prefer") == 2
    assert "shorter answers" in shown and "longer answers" in shown
    assert "Typical pairs" in shown and "The group's votes" in shown and "nearest to the group's centre" in shown
    assert "95% intervals are over people" in shown and "80 decided labels of 8 people against 8 others" in shown
    assert "found in the same labels" in shown


def test_the_card_of_a_group_has_one_scale(camps, rita, open_page, words):
    page = open_page("people", camps, rita, **{"profile-0": True})
    profile = group_profiles.profiles(camps)[0]
    charts = [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]
    (chart,) = (one for one in charts if "(d)" in one["layout"].get("xaxis", {}).get("title", {}).get("text", ""))
    found = dict(zip(chart["data"][-1]["y"], chart["data"][-1]["x"], strict=True))
    assert found == pytest.approx({one.words: abs(one.d) for one in profile.label_statements})
    assert "typical difference" not in words(page) and "standard deviations between people (d)" in words(page)


def test_a_group_is_shown_by_answers_only_where_found_features_predict_more(camps, rita, open_page, words, monkeypatch):
    sure, unsure = Gain(0.7, 0.75, 0.01, 0.09, 500), Gain(0.7, 0.69, -0.04, 0.02, 500)
    preferred = {0: (Preferred(("An *oak* is a tree.",), ("An ant is an insect.",), 1.2),)}
    for gain, groups in ((sure, preferred), (unsure, {})):
        view = FoundFeaturesView(gain, groups, 24, 160, "v0001")
        monkeypatch.setattr(found_features, "found", lambda session, version, view=view: view)
        shown = words(open_page("people", camps, rita, **{"profile-0": True, "profile-1": True}))
        assert (
            ("Prefer answers like these" in shown) == ("oak" in shown) == ("ant is an insect" in shown) == bool(groups)
        )
        assert ("None distinguishes this group" in shown) == bool(groups), "of the other group"
        assert ("So none is shown." in shown) != bool(groups)
        assert "500 held-out answers" in shown and "An *oak*" not in shown, "marks of Markdown are shown as they are"


def test_a_person_is_found_with_those_who_answer_like_them(camps, rita, open_page, words):
    user = next(user for user in access.users(camps) if user.name == "user 02")
    page = open_page("people", camps, rita)
    page.selectbox(key="found").set_value(user.id).run()
    near = page.dataframe[0].value
    assert len(near) == 5 and all(int(name[5:7]) % 2 == 0 for name in near["person"])
    assert page.query_params["person"] == str(user.id)


def test_two_people_are_compared_in_actual_texts(camps, rita, open_page, words):
    one, other = (next(user for user in access.users(camps) if user.name == name) for name in ("user 02", "user 05"))
    page = open_page("people", camps, rita, found=one.id, other=other.id)
    shown = words(page)
    assert "are expected to prefer the same answer on" in shown and "of 12 pairs" in shown
    assert (
        shown.replace("\\", "").count("user 02 (simulated): ") == 5
        and "for the first" in shown
        and "Yes, number" in shown
    )
    page.selectbox(key="other").set_value(rita.id).run()
    assert "Rita has given no label that places them on the map yet" in page.info[0].value


def test_simulated_people_can_be_left_out(camps, rita, open_page, words):
    page = open_page("people", camps, rita)
    next(one for one in page.toggle if one.label == "Include simulated people").set_value(False).run()
    assert not page.exception and not camps.record.include_simulated


# ---- who sees names

WHO = (Role.ANNOTATOR, Role.RESEARCHER, Role.OWNER)


def test_annotators_get_nobody_elses_name_and_researchers_and_owners_do(camps, open_page, sent):
    names = [user.name for user in access.users(camps)]
    ann, rita, olga = (access.join(camps, name, role) for name, role in zip(("Ann", "Rita", "Olga"), WHO, strict=True))
    label_in_camp(camps, ann.id, SHORT, 10)
    given = "".join(sent(open_page(page, camps, ann)) for page in ("label", "taste"))
    assert "Your position on the map of people" in given and "You" in given
    assert not [name for name in [*names, rita.name, olga.name] if name in given]
    for user in (rita, olga):
        given = sent(open_page("people", camps, user))
        assert [name for name in names if name not in given] == []


def test_verbs_give_annotators_their_own_place_and_nobody_elses_name(camps):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 6)
    own, whole = camps.acting(ann.id), user_map.map_of_users(camps, ann.id)
    seen = user_map.own_map(own, ann.id)
    assert not seen.names.any() and not seen.true_groups.any() and seen.n_labels.sum() == seen.n_labels[seen.me] == 6
    assert np.array_equal(seen.xy, whole.xy, equal_nan=True) and np.array_equal(seen.group, whole.group)
    one, other = whole.ids[:2].tolist()
    for refused in (
        lambda: user_map.map_of_users(own, ann.id),
        lambda: user_map.own_map(own, one),
        lambda: user_map.nearest(own, ann.id),
        lambda: user_map.compare(own, one, other),
        lambda: user_map.labels_file(own, [one], "CSV"),
        lambda: user_map.labels_of_users(own, [one]),
    ):
        with pytest.raises(CoplError, match="only|somebody else"):
            refused()
    rita = access.join(camps, "Rita", Role.RESEARCHER)
    assert str(whole.names[0]) in user_map.labels_file(camps.acting(rita.id), [one], "CSV").decode()


@pytest.mark.parametrize("clear", [True, False])
def test_the_star_of_somebody_without_a_clear_group_takes_no_groups_colour(camps, rita, open_page, clear):
    for camp in (SHORT,) * 12 if clear else (SHORT, LONG) * 6:
        label_in_camp(camps, rita.id, camp, 1)
    view = user_map.map_of_users(camps, rita.id)
    assert view.my_group_is_clear == clear
    expected = group_colour(int(view.group[view.me])) if clear else NO_GROUP_COLOUR
    for name in ("people", "overview", "taste"):
        charts = open_page(name, camps, rita).get("plotly_chart")
        traces = [trace for chart in charts for trace in json.loads(chart.proto.spec)["data"]]
        (star,) = (trace["marker"] for trace in traces if trace.get("marker", {}).get("symbol") == "star")
        assert star["color"] == expected, name
