"""My taste: what the page says about a person, and how they change an answer."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from copl_core.features import FEATURE_NAMES, measure
from copl_core.records import Choice, ImportRow, Role
from copl_core.study import access, contents, label_quality, labelling, placement, suspects, user_map, user_profile
from copl_core.study.found_features import Preferred
from tests.worlds import LONG, SHORT, label_in_camp, long_text, short_text


def test_before_the_first_label_the_page_says_what_will_come(session, open_page, words):
    ann = access.join(session, "Ann")
    page = open_page("taste", session, ann)
    assert "You have not compared any answers yet" in words(page) and not page.metric


def test_labels_without_a_snapshot_are_shown_and_nothing_is_made_up(session, open_page, words, label):
    ann = access.join(session, "Ann")
    label(session, ann, 3)
    shown = words(open_page("taste", session, ann))
    assert "You have given 3 labels. The model has not been trained yet" in shown
    assert "What you like is **not certain yet**. Your 3 decided labels" in shown
    assert "None of your answers to randomly drawn pairs has a prediction" in shown
    assert "3 answers, newest first" in shown and "Snapshot v" not in shown


def test_somebody_whose_answers_fit_no_group_is_not_called_a_member(camps, open_page, words):
    ann = access.join(camps, "Ann")
    for camp in (SHORT, LONG) * 6:
        label_in_camp(camps, ann.id, camp, 1)
    shown = words(open_page("taste", camps, ann))
    assert "Your 12 labels do not clearly fit one group yet. None of them is likely enough" in shown
    assert user_map.position(camps, ann.id).group_probability < 0.5


@pytest.mark.parametrize(
    ("n_groups", "probability", "on_each"),
    [
        (2, 0.06, ("do not clearly fit one group yet. None of them is likely enough", "no group is clear yet")),
        (1, 0.0, ("one group of people", "one group so far", "there is one group of people")),
    ],
)
def test_no_page_names_a_group_that_is_not_likely_or_is_the_only_one(
    camps, open_page, words, monkeypatch, n_groups, probability, on_each
):
    found, ann = access.users(camps)[0].id, access.join(camps, "Ann")
    rita = access.join(camps, "Rita", Role.RESEARCHER)
    label_in_camp(camps, ann.id, SHORT, 12)
    position_in = placement.position_in

    def position(*given):
        return replace(position_in(*given), n_groups=n_groups, group_probability=probability, n_neighbours=0)

    monkeypatch.setattr(placement, "position_in", position)
    pages = [open_page("taste", camps, ann), open_page("label", camps, ann)]
    for page in [*pages, open_page("people", camps, rita, found=found)]:
        shown = words(page) + "".join(one.proto.body for one in page.get("html"))
        assert any(part in shown for part in on_each) and "with a probability of" not in shown
        assert "you answer most like" not in shown and "is in the group" not in shown and "Nearest" not in shown
    mine = words(pages[0])
    assert "Nobody else has labelled some of the same answers" in mine and "people who answer like you" not in mine


@pytest.mark.parametrize(
    ("camp", "liked", "not_liked"),
    [(SHORT, "shorter answers", "longer answers"), (LONG, "longer answers", "shorter answers")],
)
def test_the_page_says_whom_a_person_answers_like_and_what_they_like(camps, open_page, words, camp, liked, not_liked):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, camp, 12)
    page = open_page("taste", camps, ann)
    shown = words(page)
    assert "By your 12 labels you answer most like the group **" in shown and "Snapshot v0001" in shown
    titles = [one.label for one in page.expander]
    statements = [title for title in titles if " of your labels for it, " in title]
    view = user_profile.profile(camps, ann.id)
    assert 1 <= len(statements) <= 5 and len(statements) == len(view.leanings)
    named = {word for one in view.leanings for word in (one.words, *one.correlated)}
    assert not_liked not in named
    ahead = dict(zip(FEATURE_NAMES, measure(long_text(0)) - measure(short_text(0)), strict=True))
    if camp == SHORT:
        ahead = {feature: -value for feature, value in ahead.items()}
    # Nearly all features part these texts as length does, and at most four share a statement: every one must be true.
    assert all(one.effect * ahead[one.feature] > 0 for one in view.leanings), (liked, named)
    assert all(f"**{one.words}**" in shown for one in view.leanings)


def test_the_labels_behind_a_statement_are_one_click_away(camps, open_page, words):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 12)
    leaning = user_profile.profile(camps, ann.id).leanings[0]
    page = open_page("taste", camps, ann, **{f"evidence-{leaning.feature}": True})
    shown = words(page)
    assert "You preferred" in shown and "You did not prefer" in shown
    assert f"{leaning.votes[0]} of your labels prefer the answer with more of it" in shown
    side = next(one for one in page.segmented_control if one.key == f"side-{leaning.feature}")
    assert side.options == [f"For it ({leaning.votes[0]})", f"Against it ({leaning.votes[1]})"]


def test_a_damaged_snapshot_is_reported_and_the_answers_stay(camps, open_page, words):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 4)
    (camps.snapshot_root / "v0001" / "layout" / "layout.json").unlink()
    shown = words(open_page("taste", camps, ann))
    assert "cannot be read: Snapshot v0001 is damaged" in shown and "4 answers, newest first" in shown


def test_how_well_they_were_predicted_comes_with_interval_and_count(camps, open_page, words):
    from copl_core.study_settings import AssignmentSettings

    labelling.set_assignment(camps, AssignmentSettings(order="random", repeats=0.3, gold=0))
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 12)
    page = open_page("taste", camps, ann)
    whole = label_quality.prequential(camps, ann.id)
    predicted, own = whole.model, user_profile.profile(camps, ann.id).consistent
    assert 2 * whole.apart.hits - whole.apart.n == whole.model.hits - whole.crowd.hits
    metrics = {one.label: one.value for one in page.metric}
    assert predicted.n >= 5 and metrics["Predicted by the model"] == f"{predicted.share:.0%}"
    assert f"{predicted.hits} of {predicted.n} of your last {predicted.n} answers" in words(page)
    assert metrics["Your consistency"] == (f"{own.share:.0%}" if own.n else "–")


def answers_shown(page) -> list[str]:
    return [one.label for one in page.expander if " — " in one.label]


def test_answers_are_filtered_by_choice_text_and_marks(session, open_page, label):
    ann = access.join(session, "Ann")
    label(session, ann, 4, Choice.LEFT)
    label(session, ann, 2, Choice.TIE, reason="Neither helps.")
    page = open_page("taste", session, ann)
    assert len(answers_shown(page)) == 6 and answers_shown(page)[0].endswith("tie")
    pills = {one.label: one for one in page.pills}
    pills["Answer"].set_value([Choice.TIE]).run()
    assert len(answers_shown(page)) == 2
    pills["Answer"].set_value([]).run()
    pills["Only"].set_value(["with a reason"]).run()
    assert len(answers_shown(page)) == 2
    pills["Only"].set_value([]).run()
    page.text_input(key="past-search").set_value("HELPS neither").run()
    assert len(answers_shown(page)) == 2
    page.text_input(key="past-search").set_value("no such words").run()
    assert answers_shown(page) == []


def test_an_answer_is_changed_in_place_and_the_old_one_is_kept_as_superseded(session, open_page, words, label):
    ann = access.join(session, "Ann")
    label(session, ann, 1, Choice.LEFT, tags=("kinder",))
    (old,) = labelling.labels_of(session, ann.id)
    page = open_page("taste", session, ann, **{f"past-{old.id}": True})
    page.segmented_control(key=f"choice-{old.id}").set_value(Choice.RIGHT)
    page.segmented_control(key=f"strength-{old.id}").set_value(3)
    page.text_input(key=f"reason-{old.id}").set_value("On reflection.")
    page.button_group(key=f"tags-{old.id}").set_value(["clearer"])
    page.button(key=f"save-{old.id}").click().run()
    (new,) = labelling.labels_of(session, ann.id)
    assert (new.choice, new.strength, new.reason, new.tags) == (Choice.RIGHT, 3, "On reflection.", ("clearer",))
    assert {one.id for one in labelling.history(session, ann.id)} == {old.id, new.id}
    again = open_page("taste", session, ann, **{f"past-{new.id}": True, "past-marks": ["edited"]})
    assert answers_shown(again)[0].endswith("B, much better")
    assert "before: A, slightly better (superseded)" in words(again).replace("\\", "")  # the text escapes its marks


@pytest.mark.parametrize(
    ("choice", "kept"), [(Choice.LEFT, ("kinder",)), (Choice.RIGHT, ()), (Choice.TIE, ()), (Choice.BOTH_BAD, ())]
)
def test_what_was_better_about_an_answer_goes_when_another_is_preferred(session, open_page, label, choice, kept):
    ann = access.join(session, "Ann")
    label(session, ann, 1, Choice.LEFT, tags=("kinder",))
    (old,) = labelling.labels_of(session, ann.id)
    page = open_page("taste", session, ann, **{f"past-{old.id}": True})
    page.segmented_control(key=f"choice-{old.id}").set_value(choice)
    page.text_input(key=f"reason-{old.id}").set_value("On reflection.")
    page.button(key=f"save-{old.id}").click().run()
    (new,) = labelling.labels_of(session, ann.id)
    assert (new.choice, new.tags) == (choice, kept)


def test_an_answer_of_a_file_says_that_nobody_knows_what_was_on_the_left(session, open_page, words):
    rows = [ImportRow(1, "Eggs?", "Boiled.", "Fried.", Choice.LEFT, name, key=name) for name in ("Ann", "Bob")]
    contents.import_rows(session, [rows[0], replace(rows[1], position_known=True)])
    for name, known in (("Ann", False), ("Bob", True)):
        user = next(one for one in access.users(session) if one.name == name)
        (old,) = labelling.labels_of(session, user.id)
        page = open_page("taste", session, user, **{f"past-{old.id}": True})
        assert ("Which answer was on the left is not known" in words(page)) != known


def test_a_pair_that_was_shown_again_says_so_and_what_the_other_answer_was(session, open_page, words):
    texts = ("Eggs?", "Boiled.", "Fried."), ("Eggs?", "Fried.", "Boiled."), ("Tea?", "Black.", "Green.")
    rows = [ImportRow(n, *three, Choice.LEFT, "Ann", key=str(n)) for n, three in enumerate(texts)]
    at = datetime(2025, 3, 1, tzinfo=UTC)
    contents.import_rows(
        session, [replace(row, position_known=True, created_at=at + timedelta(days=row.line)) for row in rows]
    )
    ann = next(one for one in access.users(session) if one.name == "Ann")
    old = labelling.labels_of(session, ann.id)
    page = open_page("taste", session, ann, **{f"past-{one.id}": True for one in old})
    assert answers_shown(page) == [
        "Tea? — A, slightly better",
        "Eggs? — A, slightly better, when shown again",
        "Eggs? — A, slightly better",
    ]
    assert words(page).replace("\\", "").count("with the sides swapped; your answer was B, slightly better.") == 2
    labelling.edit(session, old[0].id, ann.id, Choice.RIGHT, strength=1)
    page = open_page("taste", session, ann, **{f"past-{old[1].id}": True})
    assert answers_shown(page)[1].endswith("A, slightly better, when shown again")
    assert "with the sides swapped; your answer was the same." in words(page).replace("\\", "")


def test_saving_without_a_change_makes_no_new_answer(session, open_page, label, words):
    ann = access.join(session, "Ann")
    label(session, ann, 1)
    (old,) = labelling.labels_of(session, ann.id)
    page = open_page("taste", session, ann, **{f"past-{old.id}": True})
    page.button(key=f"save-{old.id}").click().run()
    assert "Nothing was changed." in words(page) and labelling.labels_of(session, ann.id) == [old]


def test_nobody_sees_anybody_elses_answers(session, open_page, words, label):
    ann, bob = access.join(session, "Ann"), access.join(session, "Bob")
    label(session, ann, 2, reason="A secret of Ann's.")
    label(session, bob, 1)
    page = open_page("taste", session, bob)
    assert len(answers_shown(page)) == 1 and "secret" not in words(page)


def test_what_a_group_prefers_beyond_counted_features_is_shown_by_answers(camps, open_page, words, monkeypatch):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 11)
    assert "nobody counts" not in words(open_page("taste", camps, ann))
    found = (Preferred(("An oak is a tree.",), ("An ant is an insect.",), 2.1),)
    monkeypatch.setattr(user_profile, "uncounted", lambda session, user_id: found)
    shown = words(open_page("taste", camps, ann))
    assert "nobody counts" in shown and "An oak is a tree" in shown and "d = 2.1" in shown


def test_an_unexpected_answer_is_a_question_with_a_door_to_change_it(camps, open_page, words):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 11)
    assert "look at this again" not in words(open_page("taste", camps, ann))
    label_in_camp(camps, ann.id, LONG, 1)
    (one,) = suspects.own_suspects(camps, ann.id)
    page = open_page("taste", camps, ann)
    shown = words(page)
    assert "Would you look at this again?" in shown and f"the model expects {one.expected:.0%} for the other" in shown
    assert not page.error and not page.warning and "mistake" not in shown
    other = Choice.RIGHT if one.label.choice == Choice.LEFT else Choice.LEFT
    page.segmented_control(f"again-choice-{one.label.id}").set_value(other)
    page.button(f"again-save-{one.label.id}").click().run()
    assert not page.exception and "Changed. From now on the new answer counts" in words(page)
    assert "look at this again" not in words(page)
    assert camps.store.labels(camps.id, user_id=ann.id)[-1].choice == other


def test_an_answer_that_is_right_is_kept_and_never_asked_about_again(camps, open_page, words):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 11)
    label_in_camp(camps, ann.id, LONG, 1)
    (one,) = suspects.own_suspects(camps, ann.id)
    page = open_page("taste", camps, ann)
    page.button(f"keep-{one.label.id}").click().run()
    assert not page.exception and "look at this again" not in words(page)
    assert "look at this again" not in words(open_page("taste", camps, ann)), "another visit"
    last = camps.store.labels(camps.id, user_id=ann.id)[-1]
    assert last.confirmed_at is not None and replace(last, confirmed_at=None) == one.label


def test_one_label_is_one_label(camps, open_page, words, label):
    ann = access.join(camps, "Ann")
    label(camps, ann, 1)
    shown = words(open_page("taste", camps, ann))
    assert "Your 1 decided label on 1 question does not show it" in shown and not re.search(
        r"\b1 (labels|questions)", shown
    )
