"""Copies are named beyond what a careful person's consistency allows; a careful minority with its own taste is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from copl_core.insight.collusion import CAREFUL, alike, bound_of
from copl_core.insight.evidence import grounds, present, shown
from copl_core.insight.quality import figures
from copl_core.study_settings import AnswerTable, SelectionReason
from tests.insight.test_quality import GOLD, LEFT, REPEAT, RIGHT, TIE, table

PAIRS = 420


def world(
    seed: int, *, careful: float = 0.02, careless: float = 0.15, share: float = 0.4, per_user: int = 400
) -> AnswerTable:
    """Answers of 66 people, 10 : 1 of two tastes, some of them careful, with a tenth of repeats."""
    rng = np.random.default_rng(seed)
    taste, users = rng.random((2, PAIRS)) < 0.5, 66
    rows: list[tuple[int, int, int]] = []
    for user in range(users):
        noise = careful if rng.random() < share else careless
        pairs = rng.permutation(PAIRS)[:per_user]
        pairs = np.concatenate([pairs, pairs[: per_user // 10]])
        prefers = taste[int(user < users // 11), pairs] ^ (rng.random(len(pairs)) < noise)
        rows += [(user, pair, LEFT if left else RIGHT) for pair, left in zip(pairs, prefers, strict=True)]
    return table(rows)


def with_copies(answers: AnswerTable, k: int, *, per_user: int = 400, flip: float = 0.0, seed: int = 1) -> AnswerTable:
    """And accounts from 1000 on that share one list of random answers."""
    rng = np.random.default_rng(seed)
    key = rng.random(PAIRS) < 0.5
    rows = list(zip(answers.user.tolist(), answers.pair.tolist(), answers.choice.tolist(), strict=True))
    for user in range(1000, 1000 + k):
        pairs = rng.permutation(PAIRS)[:per_user]
        prefers = key[pairs] ^ (rng.random(per_user) < flip)
        rows += [(user, pair, LEFT if left else RIGHT) for pair, left in zip(pairs, prefers, strict=True)]
    return table(rows)


@pytest.mark.parametrize("share", [0.05, 0.4, 1.0])
def test_careful_people_of_a_small_minority_are_never_named(share):
    assert [alike(world(seed, share=share)) for seed in range(4)] == [[]] * 4


def test_copies_are_named_with_each_other_and_nobody_else():
    found = alike(with_copies(world(0), 12))
    assert {one.user_id for one in found} == set(range(1000, 1012))
    one = found[0]
    assert one.hits == one.n >= 380 and one.bound == CAREFUL and set(one.others) <= set(range(1000, 1012))
    assert one.p == pytest.approx(binom.sf(one.hits - 1, one.n, CAREFUL)) and one.user_id not in one.others


def test_copies_that_differ_as_careful_people_do_or_answer_little_are_not_named():
    assert alike(with_copies(world(0), 12, flip=0.02)) == []
    assert alike(with_copies(world(0), 12, per_user=120)) == []


def test_where_people_repeat_themselves_exactly_equal_answers_prove_nothing():
    exact = world(0, careful=0.0, share=1.0)
    assert bound_of(exact) > 0.99 and alike(exact) == []


def test_without_repeated_pairs_nobody_is_named():
    answers = with_copies(world(0), 12)
    _, first = np.unique(answers.user * PAIRS + answers.pair, return_index=True)
    once = answers.take(np.sort(first))
    assert np.isnan(bound_of(once)) and alike(once) == []
    assert len(alike(once, bound=CAREFUL)) == 12


def test_ties_that_change_are_no_inconsistency_of_what_is_forecast():
    """60 people of one clear taste who tie now and then, and another time not."""
    rng, rows = np.random.default_rng(0), []
    taste = rng.random(PAIRS) < 0.5
    for user in range(60):
        pairs = np.concatenate([np.arange(PAIRS), np.arange(40)])
        tied = rng.random(len(pairs)) < 0.2
        rows += [(user, pair, TIE if tie else LEFT if taste[pair] else RIGHT) 
                 for pair, tie in zip(pairs, tied, strict=True)]  # fmt: skip
    assert alike(table(rows)) == []


def test_with_few_people_nobody_is_named():
    copies = with_copies(table([]), 19)
    assert alike(copies, bound=CAREFUL) == []
    assert len(alike(with_copies(table([]), 20), bound=CAREFUL)) == 20


def test_copies_are_no_ground_so_that_nobody_is_left_out_for_being_copied():
    answers = with_copies(world(0), 12)
    assert len(alike(answers)) == 12 and grounds(answers, set(range(1012))) == {}


def test_the_figures_of_a_ground_follow_the_answers():
    then = table([(1, pair, LEFT) for pair in range(20)], milliseconds=[200] * 20)
    now = table([(1, pair, LEFT) for pair in range(30)], milliseconds=[200] * 29 + [60_000])
    (ground,) = grounds(then, {1})[1]
    assert "20 of 20" in ground.sentence and "29 of 30" in present(ground, figures(now)[0]).sentence


def test_an_empty_study_names_nobody():
    assert alike(table([])) == [] and grounds(table([]), {1}) == {}


def test_the_order_of_people_and_pairs_changes_nothing():
    answers = with_copies(world(0), 12)
    order = np.lexsort((np.arange(len(answers)), answers.user % 7))  # each person's answers stay in their order
    assert {one.user_id for one in alike(answers.take(order))} == {one.user_id for one in alike(answers)}


def repeats(user: int, same: int, different: int) -> list[tuple[int, int, int]]:
    return [(user, pair, RIGHT if second and pair >= same else LEFT)
            for second in (0, 1) for pair in range(same + different)]  # fmt: skip


def test_grounds_are_what_a_person_does_and_never_what_they_prefer():
    rows = repeats(1, 0, 10) + repeats(2, 10, 0) + [(3, pair, RIGHT) for pair in range(100)]
    found = grounds(table(rows), {1, 2, 3})
    assert {user: [one.kind for one in own] for user, own in found.items()} == {1: ["repeats"]}
    assert found[1][0].sentence.startswith("Gave the same answer to a repeated pair in 0 of 10 ")
    assert grounds(table(rows), {2, 3}) == {}, "others are not judged"
    assert grounds(table(repeats(1, 0, 9)), {1}) == {}, "a flag's five are not enough"


def test_careless_people_are_not_found_however_many_they_are():
    rng = np.random.default_rng(0)
    rows = [(user, pair, LEFT if left else RIGHT) for user in range(200) for _ in (0, 1)
            for pair, left in enumerate(rng.random(20) < 0.7)]  # fmt: skip
    consistent = [row.consistent.share for row in figures(table(rows))]
    assert min(consistent) < 0.4 and grounds(table(rows), set(range(200))) == {}


def test_haste_and_missed_known_answers_are_grounds():
    fast = table([(1, pair, LEFT) for pair in range(20)], milliseconds=[200] * 20)
    gold = table(
        [(2, pair, LEFT) for pair in range(10)], selection_reason=[GOLD] * 10, gold=[2 * p + 1 for p in range(10)]
    )
    assert [one.kind for one in grounds(fast, {1})[1]] == ["fast"]
    assert [one.kind for one in grounds(gold, {2})[2]] == ["gold"]


def test_a_new_account_has_shown_itself_once_its_repeats_are_clearly_above_chance():
    rows = repeats(1, 5, 0) + repeats(2, 4, 0) + repeats(3, 6, 3) + repeats(4, 15, 3)
    assert shown(table(rows), {1, 2, 3, 4}) == [1, 4] and shown(table(rows), {2, 3}) == []
    assert REPEAT == list(SelectionReason).index(SelectionReason.REPEAT)
