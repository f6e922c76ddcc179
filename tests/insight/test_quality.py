"""Chance agreement gives an alpha of zero, flags need proof, and unusual taste is never a flag."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from copl_core.insight.quality import Share, agreement, figures
from copl_core.insight.skill import NoisyBradleyTerry, skills
from copl_core.records import Choice
from copl_core.study_settings import AnswerTable, SelectionReason

LEFT, RIGHT, TIE, BAD = range(4)
UNIFORM, REPEAT, GOLD, PRACTICE = (
    list(SelectionReason).index(one)
    for one in (SelectionReason.UNIFORM, SelectionReason.REPEAT, SelectionReason.GOLD, SelectionReason.PRACTICE)
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def table(rows, **columns) -> AnswerTable:
    """Answers from (user, pair, choice); pair p shows response 2p left and 2p + 1 right."""
    user, pair, choice = np.array(rows, np.int64).reshape(-1, 3).T
    full = {
        "user": user,
        "pair": pair,
        "left": 2 * pair,
        "right": 2 * pair + 1,
        "choice": choice,
        "milliseconds": np.full(len(user), -1),
        "selection_reason": np.full(len(user), UNIFORM),
        "gold": np.full(len(user), -1),
        "characters": np.full(len(user), 200),
        "strength": np.ones(len(user)),
    }
    whole = {name: np.asarray(value, np.int64) for name, value in (full | columns).items()}
    return AnswerTable(**{"position_known": np.ones(len(user), bool)} | whole)


def swapped(answers: AnswerTable) -> AnswerTable:
    """The same preferences with every pair shown the other way round."""
    turned = np.array([RIGHT, LEFT, TIE, BAD])[answers.choice]
    return replace(answers, left=answers.right, right=answers.left, choice=turned)


def joined(first: AnswerTable, second: AnswerTable) -> AnswerTable:
    """The answers of one table, then those of another as repeats."""
    second = replace(second, selection_reason=np.full(len(second), REPEAT))
    return AnswerTable(
        *(np.concatenate([getattr(first, name), getattr(second, name)]) for name in AnswerTable.__slots__)
    )


def figures_of(answers: AnswerTable, user: int):
    return next(row for row in figures(answers) if row.user_id == user)


def labelled(user: int, lefts: int, rights: int, start: int = 0) -> list[tuple[int, int, int]]:
    return [(user, start + n, LEFT if n < lefts else RIGHT) for n in range(lefts + rights)]


# ---- shares


def test_wilsons_interval_is_that_of_the_textbook():
    assert Share(41, 50).interval == pytest.approx((0.6920, 0.9023), abs=5e-4)
    assert Share(0, 0).interval == (0, 1) and math.isnan(Share(0, 0).share)


@given(n=st.integers(1, 400), data=st.data())
def test_an_interval_holds_its_share_and_mirrors_its_opposite(n, data):
    hits = data.draw(st.integers(0, n))
    low, high = Share(hits, n).interval
    assert 0 <= low <= hits / n <= high <= 1
    assert Share(n - hits, n).interval == pytest.approx((1 - high, 1 - low))


# ---- agreement


def test_people_who_all_agree_have_an_alpha_of_one(rng):
    answers = table([(user, pair, LEFT if pair % 2 else RIGHT) for user in range(3) for pair in range(40)])
    found = agreement(answers, rng)
    assert (found.alpha, found.observed, found.n_pairs, found.n_labels) == (1, 1, 40, 120)


def test_coins_have_an_alpha_near_zero_although_half_of_them_agree(rng):
    coins = rng.integers(0, 2, (4, 500))
    found = agreement(table([(user, pair, coins[user, pair]) for user in range(4) for pair in range(500)]), rng)
    assert found.alpha == pytest.approx(0, abs=0.04) and found.low < 0 < found.high
    assert found.observed == pytest.approx(0.5, abs=0.03) and found.expected == pytest.approx(0.5, abs=0.01)


def test_alpha_is_krippendorffs_on_a_table_worked_by_hand(rng):
    # pairs answered LL, LL, LR, RR, TT: five times the first response, three times the second (so four each), two ties
    answers = table(
        [
            (0, 0, LEFT),
            (1, 0, LEFT),
            (0, 1, LEFT),
            (1, 1, LEFT),
            (0, 2, LEFT),
            (1, 2, RIGHT),
            (0, 3, RIGHT),
            (1, 3, RIGHT),
            (0, 4, TIE),
            (1, 4, TIE),
        ]
    )
    expected = (10**2 - (4**2 + 4**2 + 2**2)) / (10 * 9)
    assert agreement(answers, rng).alpha == pytest.approx(1 - (2 / 10) / expected)


def test_alpha_is_about_responses_and_not_about_sides(rng):
    coins = rng.random((3, 60)) < 0.7
    answers = table([(user, pair, int(coins[user, pair])) for user in range(3) for pair in range(60)])
    turn = np.flatnonzero(rng.random(len(answers)) < 0.5)
    mixed = replace(
        answers,
        **{
            name: np.where(
                np.isin(np.arange(len(answers)), turn), getattr(swapped(answers), name), getattr(answers, name)
            )
            for name in ("left", "right", "choice")
        },
    )
    assert agreement(mixed, np.random.default_rng(1)) == agreement(answers, np.random.default_rng(1))


def test_which_response_of_a_pair_has_the_smaller_id_does_not_matter():
    rng = np.random.default_rng(3)
    coins = rng.random((3, 60)) < 0.8
    answers = table([(user, pair, int(coins[user, pair])) for user in range(3) for pair in range(60)])
    renamed = replace(answers, left=1000 - answers.left, right=1000 - answers.right)
    assert agreement(renamed, np.random.default_rng(1)) == agreement(answers, np.random.default_rng(1))


def test_a_persons_second_thoughts_and_known_answers_are_no_agreement(rng):
    answers = table(
        [(0, 0, LEFT), (1, 0, LEFT), (0, 0, RIGHT), (0, 1, LEFT), (1, 1, LEFT)],
        selection_reason=[UNIFORM, UNIFORM, REPEAT, GOLD, GOLD],
    )
    found = agreement(answers, rng)
    assert (found.n_pairs, found.n_labels, found.observed) == (1, 2, 1)


def test_without_a_pair_of_two_people_there_is_no_alpha(rng):
    for answers in (table([]), table([(0, 0, LEFT), (1, 1, LEFT)])):
        found = agreement(answers, rng)
        assert math.isnan(found.alpha) and found.n_pairs == 0


def test_alpha_and_its_interval_are_those_of_drawing_single_pairs(rng):
    """Figures and interval as the definition gives them, with a row of counts for every pair and every sample."""
    users = np.repeat(np.arange(5), 300)
    pairs = np.concatenate([rng.choice(400, 300, replace=False) for _ in range(5)])
    choices = np.where(rng.random(1500) < 0.8, pairs % 2, rng.integers(0, 4, 1500))
    answers = table(np.column_stack([users, pairs, choices]))
    counts = np.array([[np.sum(choices[pairs == pair] == value) for value in range(4)] for pair in np.unique(pairs)])
    counts = counts[counts.sum(1) > 1].astype(float)
    m = counts.sum(1)
    apart = (m**2 - (counts**2).sum(1)) / (m - 1)

    def alpha(times: np.ndarray) -> float:
        pooled = (times[:, None] * counts).sum(0)
        pooled[:2] = pooled[:2].mean()
        n = pooled.sum()
        return 1 - (times * apart).sum() / n / ((n**2 - (pooled**2).sum()) / (n * (n - 1)))

    found = agreement(answers, rng)
    assert found.alpha == pytest.approx(alpha(np.ones(len(counts))), abs=1e-12)
    assert (found.n_pairs, found.n_labels) == (len(counts), int(m.sum()))
    drawn = [alpha(np.bincount(rng.integers(0, len(m), len(m)), minlength=len(m))) for _ in range(2000)]
    half = np.std(drawn)
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.4 * half)


# ---- each person


def test_who_always_takes_one_side_is_flagged_and_a_balanced_crowd_is_not():
    answers = table(labelled(0, 38, 2) + labelled(1, 21, 19) + labelled(2, 17, 23) + labelled(3, 3, 37))
    assert "left side" in figures_of(answers, 0).flags[0] and "38 of 40" in figures_of(answers, 0).flags[0]
    assert figures_of(answers, 1).flags == figures_of(answers, 2).flags == ()
    assert "right side" in figures_of(answers, 3).flags[0]


def test_where_everybody_has_the_better_one_on_the_left_nobody_is_flagged_for_it():
    answers = table([row for user in range(5) for row in labelled(user, 32, 8)])
    assert all(row.flags == () for row in figures(answers))
    assert figures_of(answers, 0).others_left == pytest.approx(0.8)


def test_a_handful_of_answers_flags_nobody():
    rows = [(0, pair, LEFT) for pair in range(4)] * 2 + [(0, 10 + pair, LEFT) for pair in range(4)]
    answers = swapped(
        table(
            rows,
            selection_reason=[UNIFORM] * 4 + [REPEAT] * 4 + [GOLD] * 4,
            gold=[-1] * 8 + [21, 23, 25, 27],
            milliseconds=[300] * 9 + [-1] * 3,
        )
    )
    answers = replace(answers, choice=np.where(answers.selection_reason == REPEAT, LEFT, answers.choice))
    row = figures_of(answers, 0)
    assert (row.consistent.share, row.gold.share, row.fast.share) == (0, 0, 1) and row.flags == ()


def test_unusual_taste_is_shown_and_never_flagged():
    answers = table(
        [row for user in range(6) for row in labelled(user, 30, 30)]
        + [(9, pair, RIGHT if pair < 30 else LEFT) for pair in range(60)]
    )
    odd = figures_of(answers, 9)
    assert (odd.with_others.hits, odd.with_others.n) == (0, 60) and odd.flags == ()
    assert figures_of(answers, 0).with_others.share == 1


def test_consistency_is_measured_on_repeats_by_response():
    first = table([(0, pair, LEFT if pair % 2 else RIGHT) for pair in range(20)])
    steady = figures_of(joined(first, swapped(first)), 0)  # the other side of the screen holds the same response now
    assert steady.consistent.share == 1 and steady.flags == ()
    fickle = figures_of(joined(first, replace(first, left=first.right, right=first.left)), 0)
    assert (fickle.consistent.hits, fickle.consistent.n) == (0, 20) and "0 of 20" in fickle.flags[0]


def test_known_answers_that_are_missed_are_flagged_and_practice_is_not_held_against_anybody():
    rows = [(0, pair, RIGHT) for pair in range(8)]
    missed = table(rows, selection_reason=[GOLD] * 8, gold=[2 * pair for pair in range(8)])
    assert "0 of 8" in figures_of(missed, 0).flags[0] and figures_of(missed, 0).n == 0
    known = replace(missed, gold=missed.gold + 1)
    assert figures_of(known, 0).gold.share == 1 and figures_of(known, 0).flags == ()
    assert figures(replace(missed, selection_reason=np.full(8, PRACTICE))) == []


def test_answers_faster_than_reading_are_flagged():
    rows = labelled(0, 10, 10) + labelled(1, 10, 10) + labelled(2, 10, 10)
    answers = table(rows, milliseconds=[300] * 20 + [9000] * 20 + [4000] * 20, characters=[100] * 40 + [4000] * 20)
    assert "faster than one can read" in figures_of(answers, 0).flags[0]
    assert figures_of(answers, 1).flags == () and figures_of(answers, 1).median_seconds == 9
    assert figures_of(answers, 2).fast.share == 1  # four seconds for a thousand words
    assert figures_of(replace(answers, milliseconds=np.full(60, -1)), 0).fast.n == 0


def test_permuting_people_permutes_their_figures():
    rng = np.random.default_rng(5)
    rows = [(int(rng.integers(4)), int(rng.integers(30)), int(rng.integers(4))) for _ in range(300)]
    answers = table(rows)
    renamed = replace(answers, user=np.array([3, 1, 0, 2])[answers.user])
    for old, new in enumerate([3, 1, 0, 2]):
        assert replace(figures_of(answers, old), user_id=new) == figures_of(renamed, new)


# ---- skill


def noisy_world(rng, n_people=6, n_pairs=40) -> AnswerTable:
    """Everybody answers all pairs by one ranking but the last person, who throws a coin."""
    first = np.where(rng.random((n_people, n_pairs)) < 0.95, LEFT, RIGHT)
    first[-1] = rng.integers(0, 2, n_pairs)
    answers = table([(user, pair, first[user, pair]) for user in range(n_people) for pair in range(n_pairs)])
    turn = rng.random(len(answers)) < 0.5
    other = swapped(answers)
    return replace(
        answers,
        **{name: np.where(turn, getattr(other, name), getattr(answers, name)) for name in ("left", "right", "choice")},
    )


def test_who_throws_a_coin_has_the_least_skill(rng):
    found = skills(noisy_world(rng))
    assert min(found, key=found.get) == 5 and all(found[user] > 0.8 for user in range(5)) and found[5] < 0.5


def test_few_answers_give_no_skill():
    assert skills(table(labelled(0, 5, 4))) == {} and skills(table([])) == {}


def test_skills_are_found_again_in_answers_drawn_from_the_model(rng):
    n_users, n_responses, skill = 12, 20, np.repeat([0.3, 0.9], 6)
    score, habit = rng.normal(0, 2, n_responses), rng.normal(0, 2, n_users)
    user = np.repeat(np.arange(n_users), 150)
    left = rng.integers(n_responses, size=len(user))
    right = (left + rng.integers(1, n_responses, len(user))) % n_responses
    by_score = rng.random(len(user)) < skill[user]
    prefers_left = rng.random(len(user)) < expit(np.where(by_score, score[left] - score[right], habit[user]))
    rows = np.column_stack([user, np.arange(len(user)), np.where(prefers_left, LEFT, RIGHT)])
    found = skills(table(rows, left=left, right=right))
    assert np.array(list(found.values())) == pytest.approx(skill, abs=0.25)
    assert found == skills(table(rows, left=left, right=right))


def test_the_gradient_is_the_objectives(rng):
    left, right, y = np.array([0, 2, 0, 1]), np.array([1, 1, 2, 0]), np.array([1.0, -1, -1, 1])
    known = np.array([1, 1, 0, 1])
    model = NoisyBradleyTerry(left, right, y, np.array([0, 1, 1, 0]), 3, 2, known, tightness=0.3)
    x = rng.normal(size=len(model.start))
    step = 1e-6 * np.eye(len(x))
    slope = [(model.loss(x + one)[0] - model.loss(x - one)[0]) / 2e-6 for one in step]
    assert model.loss(x)[1] == pytest.approx(slope, abs=1e-6)


def test_a_labelling_page_loads_no_library_that_only_training_needs():
    program = "import sys, copl_core.study.session; print(sorted({'pandas', 'torch', 'sklearn'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_choices_stand_in_the_order_that_tables_number_them():
    assert [Choice.LEFT, Choice.RIGHT, Choice.TIE, Choice.BOTH_BAD] == list(Choice)


def test_answers_with_an_unknown_position_say_nothing_about_a_preference_for_one_side():
    rows = labelled(1, 40, 0)
    unknown = table(rows, position_known=np.zeros(40, bool))
    assert any("left side" in flag for flag in figures_of(table(rows), 1).flags)
    assert figures_of(unknown, 1).left.n == 0 and figures_of(unknown, 1).flags == ()


def test_skill_needs_no_position(rng):
    """Two users answer by one ranking; which response is called left changes nothing where the position is unknown."""
    rows = [(user, pair, LEFT) for user in (1, 2) for pair in range(20)]
    unknown = table(rows, position_known=np.zeros(40, bool))
    assert skills(unknown) == pytest.approx(skills(swapped(unknown)), abs=1e-6)
