"""Quality: careless people are listed for what preferences cannot explain, excluded and included again."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, Ground, Role
from copl_core.study import access, audit_trail, contents, label_quality, labelling
from copl_core.study_settings import AssignmentSettings
from tests.worlds import SHORT, camp_labels, label_in_camp, open_study, pairs_to_label


@pytest.fixture
def session(tmp_path):
    """Forty pairs, and people who label them in peace."""
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(40))
    labelling.set_assignment(session, AssignmentSettings(order="imported", repeats=0, gold=0))
    return session


def labels_by_length(session, name: str, count: int = 30, milliseconds: int = 60_000) -> None:
    """Somebody careful who likes what is short, wherever it stands."""
    user = access.join(session, name)
    for _ in range(count):
        task = labelling.next_task(session, user.id)
        choice = Choice.LEFT if len(task.left.text) < len(task.right.text) else Choice.RIGHT
        labelling.submit(session, task.id, user.id, choice, milliseconds=milliseconds)


def other_side(choice: Choice) -> Choice:
    return Choice.RIGHT if choice == Choice.LEFT else Choice.LEFT


def test_before_the_first_answer_the_page_says_so(session, owner, open_page, words):
    page = open_page("quality", session, owner)
    assert "Nobody has answered a pair yet" in words(page) and not page.dataframe


def test_careful_people_do_not_stand_out_and_differing_is_no_reason(session, owner, open_page, words):
    labels_by_length(session, "Ann")
    labels_by_length(session, "Bob")
    shown = words(open_page("quality", session, owner))
    assert "2 people have given 60 answers. **Nobody stands out**" in shown
    assert "Disagreeing with others is never a reason" in shown


def test_somebody_who_keeps_to_one_side_in_no_time_is_named_with_numbers(session, owner, open_page, words, label):
    for name in ("Ann", "Bob", "Cleo"):
        labels_by_length(session, name)
    label(session, access.join(session, "Lefty"), 30, Choice.LEFT, milliseconds=200)
    page = open_page("quality", session, owner)
    shown = words(page)
    assert "**1 of them stands out**" in shown
    named = next(line for line in shown.splitlines() if "**Lefty.**" in line)
    assert "Prefers the left side: chose the left answer in 30 of 30" in named and "Answers faster" in named
    assert list(page.dataframe[0].value["person"]) == ["Lefty", "Ann", "Bob", "Cleo"]  # who stands out comes first
    assert page.dataframe[0].value["left"].iloc[0] == 100


def test_answers_of_which_nobody_knows_what_was_on_the_left_show_no_side_preference(session, owner, open_page, words):
    rows = [replace(row, choice=Choice.LEFT, annotator="Ann", key=f"Ann {row.line}") for row in pairs_to_label(30)]
    contents.import_rows(session, rows)
    page = open_page("quality", session, owner)
    assert "**Nobody stands out**" in words(page)
    assert "No decided answers to show of which it is known what was on the left." in words(page)


def test_agreement_says_its_interval_its_count_and_what_it_means(session, owner, open_page, words):
    labels_by_length(session, "Ann")
    labels_by_length(session, "Bob")
    found = label_quality.quality(session).agreement
    page = open_page("quality", session, owner)
    assert page.metric[0].value == f"{found.alpha:.2f}" == "1.00"
    assert "Nearly everybody prefers the same answers" in words(page)
    assert f"over {found.n_labels} labels on {found.n_pairs} pairs" in words(page)


def test_every_column_of_the_table_has_a_name_of_its_own_and_is_explained(session, owner, open_page, words):
    labels_by_length(session, "Ann")
    page = open_page("quality", session, owner)
    names = list(page.dataframe[0].value.columns)
    assert names.index("repeats") + 1 == names.index("same again") and "n" not in names
    assert '"label"' not in page.dataframe[0].proto.columns  # no column is shown under another name
    assert all(f"{name}: " in words(page) for name in ("left", "same again", "gold right", "seconds", "as most do"))


def test_a_negative_agreement_has_the_minus_sign_of_all_pages(session, owner, open_page, words):
    for name, choice in (("Ann", Choice.LEFT), ("Bob", Choice.RIGHT)):
        user = access.join(session, name)
        for _ in range(12):
            task = labelling.next_task(session, user.id)
            first_left = task.left.id < task.right.id
            labelling.submit(
                session, task.id, user.id, choice if first_left else other_side(choice), milliseconds=60_000
            )
    page = open_page("quality", session, owner)
    assert page.metric[0].value.startswith("−") and "= -" not in words(page)


def test_one_persons_answers_have_no_agreement(session, owner, open_page, words):
    labels_by_length(session, "Ann", 3)
    assert "No pair has been answered by two people yet" in words(open_page("quality", session, owner))


def test_skill_is_computed_only_on_request(session, owner, open_page):
    labels_by_length(session, "Ann", 12)
    labels_by_length(session, "Bob", 12)
    page = open_page("quality", session, owner)
    assert "skill" not in page.dataframe[0].value
    page.toggle(key="skill").set_value(True).run()
    assert not page.exception and page.dataframe[0].value["skill"].between(0, 1).all()


def test_simulated_people_are_shown_when_asked_for_and_marked(session, owner, open_page, words):
    contents.import_rows(session, camp_labels(n_users=2, n_prompts=6, per_user=5))
    page = open_page("quality", session, owner)
    assert "No human has answered yet" in words(page) and not page.dataframe
    page.toggle(key="quality-simulated").set_value(True).run()
    assert all(re.fullmatch(r"user \d\d \(simulated\)", name) for name in page.dataframe[0].value["person"])


def test_an_owner_leaves_somebody_out_after_saying_so_twice_and_takes_them_in_again(session, owner, open_page, words):
    labels_by_length(session, "Ann")
    ann = access.join(session, "Ann")
    for wanted in (True, False):
        page = open_page("quality", session, owner)
        page.selectbox(key="exclusion-person").set_value(ann.id).run()
        page.button(key="exclusion-ask").click().run()
        assert access.user(session, ann.id).excluded is not wanted  # only requested so far
        page.button(key="exclusion-do").click().run()
        assert access.user(session, ann.id).excluded is wanted and not page.exception
        assert session.store.label_count(session.id) == (0 if wanted else 30)
    assert [entry.user_id for entry in access.audit(session) if entry.event == "exclude"] == [owner.id] * 2


def test_a_researcher_looks_and_changes_nothing(session, open_page, words):
    labels_by_length(session, "Ann", 3)
    page = open_page("quality", session, access.join(session, "Rita", Role.RESEARCHER))
    assert "Do people agree?" in words(page) and "Exclude somebody" not in words(page) and not page.selectbox


def test_before_a_snapshot_no_label_is_named(session, owner, open_page, words):
    labels_by_length(session, "Ann")
    assert "it will name labels here that it does not expect" in words(open_page("quality", session, owner))


def test_unexpected_labels_are_a_question_in_a_table_and_flag_nobody(camps, open_page, words):
    olga, ann = access.join(camps, "Olga", Role.OWNER), access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 11)
    task = labelling.next_task(camps, ann.id)
    left_is_short = len(task.left.text) < len(task.right.text)
    choice = Choice.RIGHT if left_is_short else Choice.LEFT
    labelling.submit(camps, task.id, ann.id, choice, reason="my own words", milliseconds=60_000)
    page = open_page("quality", camps, olga)
    shown = words(page)
    assert "Would you look at this again?" in shown and "clearly different from what the model expects" in shown
    listed = page.dataframe[-1].value
    assert "Ann" in list(listed["person"]) and listed["expected"].min() > 80
    assert "my own words" not in shown + listed.to_string()
    assert "**Ann.**" not in shown  # nobody stands out for it


def repeated_labels(n_users: int, n_pairs: int = 10, changed: int = 2):
    """Everybody labels every pair twice and changes their mind about some."""
    for user in range(n_users):
        for again in (False, True):
            for line, row in enumerate(pairs_to_label(n_pairs)):
                choice = Choice.RIGHT if again and line < changed else Choice.LEFT
                yield replace(row, choice=choice, annotator=f"user {user}", key=f"{user}-{line}-{again}")


def test_repeated_pairs_say_how_high_any_accuracy_can_be(session, owner, open_page, words):
    contents.import_rows(session, repeated_labels(4))
    assert "No model can predict" not in words(open_page("quality", session, owner))  # too few people
    contents.import_rows(session, repeated_labels(6))
    shown = words(open_page("quality", session, owner))
    assert "**No model can predict more than about 89%** of single answers" in shown  # (1 + √0.6) / 2
    assert "6 people gave the same answer to 80% of 60 repeated pairs" in shown
    excluded = next(user for user in access.users(session) if user.name == "user 0")
    access.exclude(session, excluded.id, True)
    assert label_quality.ceiling(session).n_users == 5


def test_an_owner_sees_who_is_left_out_and_why_and_decides(session, owner, open_page, words):
    labels_by_length(session, "Ann")
    ann, cleo = access.join(session, "Ann"), access.join(session, "Cleo_1")
    assert "Left out until an owner decides" not in words(open_page("quality", session, owner))
    for user in (ann, cleo):
        session.store.quarantine(user.id, [Ground("fast", "Answered faster than one can read in 20 of 20.")])
    assert "2 people are left out of training until you decide." in words(open_page("overview", session, owner))
    rita = access.join(session, "Rita", Role.RESEARCHER)
    shown = words(open_page("quality", session, rita))
    assert "**2 people wait**, with 30 labels" in shown and "Answered faster than one can read" in shown
    assert not [button for button in open_page("quality", session, rita).button if "Count" in button.label]
    assert "left out of training" not in words(open_page("overview", session, rita))
    page = open_page("quality", session, owner)
    page.button(key=f"leave-out-{cleo.id}").click().run()
    assert "stays left out of training and votes." in page.success[0].value and "Cleo" in page.success[0].value
    page.button(key=f"count-{ann.id}").click().run()
    assert not page.exception and "Left out until an owner decides" not in words(page)
    assert "Ann counts in training and votes again." in words(page) and "Left out earlier, and decided: 2" in str(page)
    assert access.user(session, cleo.id).excluded and access.user(session, ann.id).trained
    assert session.store.label_count(session.id) == 30
    entries = [entry for entry in access.audit(session) if entry.event == "quarantine decided"]
    assert [(entry.user_id, entry.detail["count"]) for entry in entries] == [(owner.id, True), (owner.id, False)]


def copies(n_users: int, n_copies: int):
    """People of one taste who answer a tenth at random, twice where ``line`` is small, and accounts with one list."""
    rng, prefers = np.random.default_rng(0), np.random.default_rng(1).random(400) < 0.5
    for user in range(n_users + n_copies):
        for line, row in enumerate(pairs_to_label(400)):
            for again in range(1 + (line < 8 and user < n_users)):
                likely = rng.random() < 0.85 if user < n_users else prefers[line]
                choice = Choice.LEFT if likely else Choice.RIGHT
                name = f"user {user}" if user < n_users else f"copy {user - n_users}"
                yield replace(row, choice=choice, annotator=name, key=f"{user}-{line}-{again}")


def test_owners_are_shown_answers_that_are_too_much_alike_and_nobody_is_left_out(session, owner, open_page, words):
    contents.import_rows(session, copies(18, 2))
    people = {user.name: user.id for user in access.users(session)}
    page = open_page("quality", session, owner)
    shown = words(page)
    assert "Answers more alike than taste explains" in shown and "**2 people give** answers" in shown
    assert "**copy 0.** Answers of others forecast 400 of 400 (100.0%)" in shown and "Most alike: **copy 1**" in shown
    assert access.user(session, people["copy 0"]).trained
    rita = access.join(session, "Rita", Role.RESEARCHER)
    assert "more alike than taste" not in words(open_page("quality", session, rita))
    again = open_page("quality", session, owner)
    page.button(key=f"alike-out-{people['copy 0']}").click().run()
    assert not page.exception and "copy 0 is left out of training and votes." in page.success[0].value
    assert access.user(session, people["copy 0"]).excluded and access.user(session, people["copy 1"]).trained
    assert "more alike than taste" not in words(page)
    again.button(key=f"alike-keep-{people['copy 0']}").click().run()
    assert "not among those that are too much alike any more" in again.toast[0].value


def test_answers_that_an_owner_accepts_are_named_again_only_with_another_account(session, owner, open_page, words):
    contents.import_rows(session, copies(18, 2))
    people = {user.name: user.id for user in access.users(session)}
    page = open_page("quality", session, owner)
    page.button(key=f"alike-keep-{people['copy 0']}").click().run()
    assert "more alike than taste" not in words(page) and "this page names them no more" in page.success[0].value
    assert access.user(session, people["copy 0"]).trained and not label_quality.alike_people(session)
    trail = [change.sentence for change in audit_trail.changes(session)[0]]
    assert "accepted that copy 0 and copy 1 answer alike" in trail[0]
    record = session.store.stored_of(people["copy 1"])["record"]
    assert {"users": [people["copy 0"], people["copy 1"]]} in [entry["detail"] for entry in record]
    contents.import_rows(session, [row for row in copies(18, 3) if row.annotator == "copy 2"])
    assert {one.user.name for one in label_quality.alike_people(session)} == {"copy 0", "copy 1", "copy 2"}
    access.exclude(session, next(user.id for user in access.users(session) if user.name == "copy 2"), True)
    assert not label_quality.alike_people(session), "those who remain have been accepted"


def test_an_owner_takes_back_that_accounts_are_accepted_as_alike(session, owner, open_page, words):
    contents.import_rows(session, copies(18, 2))
    people = {user.name: user.id for user in access.users(session)}
    page = open_page("quality", session, owner)
    assert "Accepted as alike" not in str(page)
    for _ in range(2):
        page.button(key=f"alike-keep-{people['copy 1']}").click().run()
        assert "Accepted as alike: 1" in str(page) and "**copy 0** and **copy 1** answer alike." in words(page)
        late = open_page("quality", session, owner)
        page.button(key="alike-again-0").click().run()
        assert not page.exception and "named again" in page.success[0].value and "Accepted as alike" not in str(page)
        assert "**2 people give** answers" in words(page)
    late.button(key="alike-again-0").click().run()
    assert "not accepted as alike any more" in late.toast[0].value
    trail = [change.sentence for change in audit_trail.changes(session, 1)[0]]
    assert "took back that copy 0 and copy 1 answer alike." in trail[0]
    with pytest.raises(CoplError, match="only an owner"):
        label_quality.end_alike(session, [], by=access.join(session, "Rita", Role.RESEARCHER).id)


def test_a_name_is_drawn_in_figures_as_it_was_written(session, owner, open_page, label, sent):
    ann = access.join(session, "Ann <i>Bo</i> & %{x}")
    label(session, ann, 3)
    page = open_page("quality", session, owner)
    (figure,) = page.get("plotly_chart")
    assert "Ann &lt;i&gt;Bo&lt;/i&gt; &amp; %&#123;x}" in json.loads(figure.proto.spec)["data"][0]["y"]
