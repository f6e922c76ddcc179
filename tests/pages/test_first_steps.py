"""What pages say in a new study and in one with a few labels: nothing that only holds for a large one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from copl_core.records import Choice, Role
from copl_core.study import access, attempts, contents, user_map
from pages.common import GATES
from tests.pages.conftest import ROOT
from tests.pages.test_training import GAIN, with_gain
from tests.worlds import camp_labels, open_study, pairs_to_label

ROW = {"prompt": "Name a bird", "response_a": "Robin", "response_b": "Wren"}


@pytest.fixture
def empty(tmp_path):
    return open_study(tmp_path)


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        (Role.OWNER, "Import a file of pairs or labels to begin"),
        (Role.RESEARCHER, "An owner of the study imports them"),
        (Role.ANNOTATOR, "Come back a little later"),
    ],
)
def test_a_study_without_pairs_thanks_nobody_and_says_who_can_import(empty, open_page, words, role, sentence):
    page = open_page("label", empty, access.join(empty, "Ann", role))
    assert "This study has no pairs" in words(page) and sentence in words(page) and "Thank you" not in words(page)
    assert [button.key for button in page.button] == ["to-import"] * (role == Role.OWNER)


def file_chosen(session, owner, open_page):
    page = open_page("settings", session, owner, **{"settings-part": "Studies"})
    page.file_uploader(key="import-file").set_value(("birds.jsonl", json.dumps(ROW).encode() + b"\n", "")).run()
    assert not page.exception
    return page


def test_a_file_goes_into_the_study_that_is_empty_and_its_name_is_shown_as_it_is(tmp_path, empty, open_page):
    record = empty.store.create_study("A *new* one")
    session = type(empty)(empty.store, empty.settings, record.id)
    olga = access.join(session, "Olga", Role.OWNER)
    page = file_chosen(session, olga, open_page)
    assert page.radio(key="import-where").value == r"Into A \*new\* one"
    n_studies = len(session.store.studies())
    page.button(key="import-make").click().run()
    assert len(session.store.pairs(session.id)) == 1 and len(session.store.studies()) == n_studies


def test_a_file_for_a_study_with_pairs_makes_another_one_whose_name_is_filled_in(session, owner, open_page):
    page = file_chosen(session, owner, open_page)
    assert page.radio(key="import-where").value == "Into a new study"
    assert page.text_input(key="import-name").value == "birds"
    content = (json.dumps(ROW | {"prompt": "Another"}).encode() + b"\n", "")
    page.file_uploader(key="import-file").set_value(("songs.jsonl", *content)).run()
    assert page.text_input(key="import-name").value == "songs"


def test_shares_on_the_map_are_coloured_on_the_whole_scale(camps):
    from pages.people_map import Colouring, picture

    view = user_map.map_of_users(camps)
    value = np.where(np.arange(len(view.ids)) == 0, 0.0, np.nan)
    for by, ends in (("consistency", (0, 1)), ("predicted", (0, 1)), ("labels", (None, None))):
        axis = picture(view, Colouring(by, value, view.n_labels)).layout.coloraxis
        assert (axis.cmin, axis.cmax) == ends


def test_agreement_below_chance_on_few_pairs_is_called_so_and_has_no_interval(session, owner, open_page, words):
    rows = [
        replace(row, choice=choice, annotator=name, key=f"{name} {number}")
        for number, row in enumerate(list(pairs_to_label(12))[:3])
        for name, choice in (("Ann", Choice.LEFT), ("Bob", Choice.RIGHT))
    ]
    contents.import_rows(session, rows)
    shown = words(open_page("quality", session, owner))
    assert "People agree less than chance" in shown and "rests on 3 pairs only" in shown
    assert "95% interval −" not in shown


def test_where_only_simulated_people_answer_one_sentence_says_how_to_see_their_figures(
    session, owner, open_page, words
):
    contents.import_rows(session, camp_labels(n_users=2, n_prompts=6, per_user=5))
    page = open_page("quality", session, owner)
    assert words(page).count("No human has answered yet. Show simulated people") == 1
    assert "Which side of the screen" not in words(page)
    page.toggle(key="quality-simulated").set_value(True).run()
    assert "Which side of the screen" in words(page) and "No human" not in words(page)


def test_the_first_snapshot_waits_for_one_number_of_labels(session, owner, open_page, words, label):
    session.store.heartbeat("gpu-1-abc", "gpu-1", ("graph", "full"), "waiting")
    label(session, owner, 3)
    assert "3 of 10 for the first snapshot" in words(open_page("training", session, owner))


def test_a_few_held_out_answers_are_too_few_to_tell(camps, open_page, words):
    with_gain(camps, GAIN | {"n": 3, "accuracy_interval": [0.05, 0.05]}, files_of="v0001")
    for name in ("training", "overview"):
        shown = words(open_page(name, camps, access.join(camps, f"Olga {name}", Role.OWNER)))
        assert "3 held-out answers: too few to tell" in shown and "points more" not in shown
        assert "Yes." not in shown and "+8.8 points" not in shown


def test_small_weights_stand_out_on_a_dark_page():
    """A fifth of the scale differs from nothing by a contrast of 1.5 (WCAG 2.2, relative luminance)."""

    def luminance(alpha: float) -> float:
        mixed = ((1 - alpha) * page + alpha * ink for page, ink in zip((21, 24, 28), (40, 132, 196), strict=True))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (one / 255 for one in mixed)]
        return sum(share * one for share, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, fifth, high = (float(colour.rstrip(")").split(",")[3]) if "rgba" in colour else 1.0 for _, colour in GATES)
    assert GATES[1][0] == 0.2 and low < fifth < high
    assert (luminance(fifth) + 0.05) / (luminance(low) + 0.05) > 1.5


def test_a_file_in_which_some_pairs_have_no_label_says_on_how_many_its_labels_are(session, owner, open_page, words):
    rows = [ROW | {"choice": "a", "annotator": "Ann"}, ROW | {"prompt": "Name a song"}]
    page = open_page("settings", session, owner, **{"settings-part": "Studies"})
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    page.file_uploader(key="import-file").set_value(("birds.jsonl", content, "")).run()
    assert "1 label of 1 person on 1 of 2 pairs." in words(page)


def test_a_small_figure_has_no_sign():
    from pages.reward_results import number

    assert [number(-0.001), number(-0.2)] == ["0.00", "−0.20"]


def test_one_address_joins_so_often_a_minute_and_then_waits(empty, open_page, words, monkeypatch):
    monkeypatch.setattr(attempts, "JOINS", 1)
    monkeypatch.setattr(type(st.context), "ip_address", "203.0.113.9")
    attempts.forget()
    for name in ("Ann", "Ben"):
        page = open_page("join", empty, None)
        page.text_input[0].set_value(name)
        next(one for one in page.button if one.label == "Begin").click()
        page.run()
    assert "try again in" in words(page) and "have not joined" in words(page)
    attempts.forget()
    assert [user.name for user in access.users(empty) if user.name in ("Ann", "Ben")] == ["Ann"]


def test_who_joins_reads_first_who_sees_the_answers_and_how_one_leaves(empty, open_page, words):
    shown = words(open_page("join", empty, None))
    assert "Owners and researchers of the study see your answers and reasons under the name that you give" in shown
    assert "*Delete me* deletes it for good" in shown and "A nickname is enough" in shown


def test_who_signed_in_too_late_reads_that_the_link_stays(empty, words):
    page = AppTest.from_file(str(ROOT / "pages" / "join.py"), default_timeout=30)
    page.session_state["session"], page.query_params["link"] = empty, "later"
    assert "your link stays" in words(page.run())


def test_who_opens_an_expired_link_reads_how_to_get_another(empty, words):
    page = AppTest.from_file(str(ROOT / "pages" / "join.py"), default_timeout=30)
    page.session_state["session"], page.query_params["link"] = empty, "expired"
    found = words(page.run())
    assert "has expired. Ask the person who sent it, or an owner of the study" in found and " link`" in found


def test_a_single_answer_is_counted_in_the_singular(session, owner, open_page, words, label):
    label(session, owner, 1)
    assert "1 answer, newest first." in words(open_page("taste", session, owner))
    page = open_page("quality", session, owner, **{f"exclusion-confirming-{owner.id}-False": True})
    page.selectbox(key="exclusion-person").set_value(owner.id).run()
    assert f"The 1 label of {owner.name} will not train" in words(page)
    page = open_page("settings", session, owner, **{"settings-part": "Record"})
    assert "1 change in all: " in words(page)
