"""Two sets of rows over one numbering, and the small world inside one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.evaluation.dataset import (
    EvalDataset,
    build_world,
    flipped,
    only_new_prompts,
    with_strangers,
    without_strangers,
)
from copl_core.evaluation.validation import asked_about_met, probe_world
from copl_core.records import Choice, CoplError
from tests.evaluation.test_evaluate import about_own_prompts, rows


def said(world: EvalDataset, labels) -> set[tuple]:
    """Labels by name: who preferred which text."""
    return {
        (world.users[u], world.texts[a], world.texts[b], float(o))
        for u, a, b, o in zip(labels.user, labels.left, labels.right, labels.outcome, strict=True)
    }


def test_context_labels_are_given_and_never_asked():
    world = build_world(rows(range(4), range(6)), rows(range(3, 6), range(8)), context=3)
    assert len(world.context) == 2 * 3  # users 4 and 5 are new, user 3 is not
    assert len(world.asked) == 8 + 2 * 5
    first = [(4, 0), (4, 1), (4, 2)]
    given = world.context.take(world.context.user == 4)
    assert [(u, world.prompts.index(world.texts[r][0])) for u, r in zip(given.user, given.left, strict=True)] == first
    assert world.train.n_users == 4
    assert world.train.n_responses == 12
    assert len(world.texts) == 16
    assert world.new_user.sum() == 10 and world.new_text.sum() == 6


def test_strengths_of_a_file_reach_what_is_learned_given_and_asked():
    strong = [replace(row, strength=1 + row.line % 3) for row in rows(range(6), range(6))]
    world = build_world(strong[:24], strong[18:], context=3)
    assert world.train.labels.strength.tolist() == [row.strength for row in strong[:24]]
    assert world.context.strength.tolist() == [row.strength for row in strong[24:27] + strong[30:33]]
    assert world.asked.strength.tolist() == [row.strength for row in strong[18:24] + strong[27:30] + strong[33:]]


def test_without_context_every_label_is_asked():
    world = build_world(rows(range(4), range(6)), rows(range(4, 6), range(6)))
    assert len(world.context) == 0
    assert len(world.asked) == 12


def test_nothing_left_to_ask_is_told_in_a_sentence():
    with pytest.raises(CoplError, match="Nothing is left to ask"):
        build_world(rows(range(2), range(3)), rows(range(2, 3), range(3)), context=3)


def test_a_persons_group_is_the_one_that_all_their_rows_name():
    named = [
        replace(row, true_group="short" if row.annotator == "user 0" or row.line % 2 else "long")
        for row in rows(range(2), range(4))
    ]
    world = build_world(named, named)
    assert world.groups == ("short", None)
    assert len(world.asked_groups) == 8


def test_new_prompts_of_one_file_are_kept_from_training():
    every = rows(range(3), range(10))
    train, test = only_new_prompts(every, every, seed=0, same=True)
    assert not {row.prompt for row in train} & {row.prompt for row in test}
    assert len({row.prompt for row in test}) == 2
    assert len(train) + len(test) == len(every)


def test_of_another_file_only_prompts_that_training_lacks_are_asked():
    train, test = only_new_prompts(rows(range(3), range(5)), rows(range(3), range(4, 7)), seed=0, same=False)
    assert {row.prompt for row in test} == {"Question 5?", "Question 6?"}
    assert len(train) == 15
    with pytest.raises(CoplError, match="--new-prompts"):
        only_new_prompts(rows(range(3), range(5)), rows(range(3), range(5)), seed=0, same=False)


def test_a_stranger_is_somebody_else_asked_the_same():
    world = build_world(rows(range(4), range(6)), rows(range(4), range(6)))
    twice = with_strangers(world, seed=0)
    n = len(world.asked)
    assert (twice.asked.user[n:] != world.asked.user).all()
    np.testing.assert_array_equal(twice.asked.left[:n], twice.asked.left[n:])
    assert said(world, twice.asked.take(np.arange(n))) == said(world, world.asked)


def test_without_strangers_a_world_is_as_it_was():
    world = build_world(rows(range(4), range(6)), rows(range(4), range(6)))
    for again in (without_strangers(world), without_strangers(with_strangers(world, seed=0))):
        assert said(again, again.asked) == said(world, world.asked)
        assert (len(again.asked), again.asked_groups) == (len(world.asked), world.asked_groups)


def test_flipping_twice_is_nothing():
    every = rows(range(4), range(6))
    every[0] = replace(every[0], choice=Choice.TIE)
    world = build_world(every, rows(range(3, 6), range(6)), context=2)
    once, again = flipped(world), flipped(flipped(world))
    assert (once.train.labels.outcome + world.train.labels.outcome == 1).all()
    assert said(again, again.train.labels) == said(world, world.train.labels)
    assert said(once, once.asked) == said(world, world.asked)


def test_a_probe_asks_nothing_that_it_learns_from_and_nothing_outside_training():
    world = build_world(rows(range(20), range(12)), rows(range(15, 24), range(10, 16)), context=3)
    probe = probe_world(world, seed=0)
    learned, asked = said(probe, probe.train.labels), said(probe, probe.asked)
    assert asked and learned and not learned & asked
    assert learned | asked | said(probe, probe.context) <= said(world, world.train.labels)


def test_a_probe_is_asked_as_the_world_is():
    world = build_world(rows(range(20), range(12)), rows(range(16, 24), range(10, 16)), context=3)
    probe = probe_world(world, seed=0)
    assert probe.new_user.any() and probe.new_text.any()
    assert (np.bincount(probe.context.user)[np.unique(probe.context.user)] == 3).all()
    plain = probe_world(build_world(rows(range(20), range(12)), rows(range(20), range(12), seed=1)), seed=0)
    assert not plain.new_user.any() and len(plain.context) == 0


def few_new_people() -> EvalDataset:
    """A world where nearly all asked labels are by known people, and half of the asked people are new."""
    return build_world(rows(range(20), range(12)), rows(range(10), range(12), seed=1) + rows(range(20, 30), range(1)))


@pytest.mark.parametrize(
    "made", [lambda: build_world(*about_own_prompts()), few_new_people], ids=["new meetings", "few new people"]
)
def test_a_probe_looks_at_no_label_of_a_control(made):
    world = made()
    twice = with_strangers(world, seed=0)
    assert asked_about_met(twice) == asked_about_met(flipped(world)) == asked_about_met(world)
    plain, *others = (probe_world(one, seed=0) for one in (world, twice, flipped(world), flipped(twice)))
    for probe in others:
        for mine, theirs in ((probe.train.labels, plain.train.labels), (probe.asked, plain.asked)):
            assert {told[:3] for told in said(probe, mine)} == {told[:3] for told in said(plain, theirs)}


def test_the_ids_of_a_probe_are_rows_of_the_world():
    world = build_world(rows(range(20), range(12)), rows(range(16, 24), range(10, 16)), context=3)
    probe = probe_world(world, seed=0)
    assert [world.users[i] for i in probe.train.user_ids] == list(probe.users[: probe.train.n_users])
    assert [world.texts[i] for i in probe.train.response_ids] == list(probe.texts[: probe.train.n_responses])
    assert list(probe.train.texts()) == list(probe.texts[: probe.train.n_responses])
