"""Quality: careless people are named for what taste cannot explain, and left out and taken in again."""

from __future__ import annotations

import re

import pytest

from copl_core.records import Choice, Role
from copl_core.rules import RoomSettings
from tests.worlds import camp_labels, open_study, pairs_to_label


@pytest.fixture
def study(tmp_path):
    """Forty pairs, and people who label them in peace."""
    study = open_study(tmp_path)
    study.import_rows(pairs_to_label(40))
    study.set_room(RoomSettings(order="imported", repeats=0, gold=0))
    return study


def labels_by_length(study, name: str, count: int = 30, milliseconds: int = 60_000) -> None:
    """Somebody careful who likes what is short, wherever it stands."""
    user = study.join(name)
    for _ in range(count):
        task = study.next_task(user.id)
        choice = Choice.LEFT if len(task.left.text) < len(task.right.text) else Choice.RIGHT
        study.submit(task.id, user.id, choice, milliseconds=milliseconds)


def test_before_the_first_answer_the_page_says_so(study, owner, open_page, words):
    page = open_page("quality", study, owner)
    assert "Nobody has answered a pair yet" in words(page) and not page.dataframe


def test_careful_people_do_not_stand_out_and_differing_is_no_reason(study, owner, open_page, words):
    labels_by_length(study, "Ann")
    labels_by_length(study, "Bob")
    said = words(open_page("quality", study, owner))
    assert "2 people have given 60 answers. **Nobody stands out**" in said
    assert "Disagreeing with others is never a reason" in said


def test_somebody_who_keeps_to_one_side_in_no_time_is_named_with_numbers(study, owner, open_page, words, label):
    for name in ("Ann", "Bob", "Cleo"):
        labels_by_length(study, name)
    label(study, study.join("Lefty"), 30, Choice.LEFT, milliseconds=200)
    page = open_page("quality", study, owner)
    said = words(page)
    assert "**1 of them stands out**" in said
    named = next(line for line in said.splitlines() if "**Lefty.**" in line)
    assert "Prefers the left side: chose the left answer in 30 of 30" in named and "Answers faster" in named
    assert list(page.dataframe[0].value["person"]) == ["Lefty", "Ann", "Bob", "Cleo"]  # who stands out comes first
    assert page.dataframe[0].value["left"].iloc[0] == 100


def test_agreement_says_its_interval_its_count_and_what_it_means(study, owner, open_page, words):
    labels_by_length(study, "Ann")
    labels_by_length(study, "Bob")
    found = study.quality().agreement
    page = open_page("quality", study, owner)
    assert page.metric[0].value == f"{found.alpha:.2f}" == "1.00"
    assert "Nearly everybody prefers the same answers" in words(page)
    assert f"over {found.n_labels} labels on {found.n_pairs} pairs" in words(page)


def test_one_persons_answers_have_no_agreement(study, owner, open_page, words):
    labels_by_length(study, "Ann", 3)
    assert "No pair has been answered by two people yet" in words(open_page("quality", study, owner))


def test_skill_is_reckoned_only_when_asked_for(study, owner, open_page):
    labels_by_length(study, "Ann", 12)
    labels_by_length(study, "Bob", 12)
    page = open_page("quality", study, owner)
    assert "skill" not in page.dataframe[0].value
    page.toggle(key="skill").set_value(True).run()
    assert not page.exception and page.dataframe[0].value["skill"].between(0, 1).all()


def test_simulated_people_are_shown_when_asked_for_and_marked(study, owner, open_page, words):
    study.import_rows(camp_labels(n_users=2, n_prompts=6, per_user=5))
    page = open_page("quality", study, owner)
    assert "No human has answered yet" in words(page) and not page.dataframe
    page.toggle(key="quality-simulated").set_value(True).run()
    assert all(re.fullmatch(r"user \d\d \(simulated\)", name) for name in page.dataframe[0].value["person"])


def test_an_owner_leaves_somebody_out_after_saying_so_twice_and_takes_them_in_again(study, owner, open_page, words):
    labels_by_length(study, "Ann")
    ann = study.join("Ann")
    for wanted in (True, False):
        page = open_page("quality", study, owner)
        page.selectbox(key="exclusion-person").set_value(ann.id).run()
        page.button(key="exclusion-ask").click().run()
        assert study.user(ann.id).excluded is not wanted  # asked, not done
        page.button(key="exclusion-do").click().run()
        assert study.user(ann.id).excluded is wanted and not page.exception
        assert study.store.label_count(study.id) == (0 if wanted else 30)
    assert [entry.user_id for entry in study.audit() if entry.event == "exclude"] == [owner.id] * 2


def test_a_researcher_looks_and_changes_nothing(study, open_page, words):
    labels_by_length(study, "Ann", 3)
    page = open_page("quality", study, study.join("Rita", Role.RESEARCHER))
    assert "Do people agree?" in words(page) and "Leave somebody out" not in words(page) and not page.selectbox
