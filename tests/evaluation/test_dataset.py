"""Two sets of rows over one numbering, and the validation labels inside one of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from copl_core.evaluation.dataset import (
    EvalDataset,
    build_dataset,
    flipped,
    only_new_prompts,
    only_new_texts,
    with_swapped_users,
    without_swapped_users,
)
from copl_core.evaluation.validation import random_split, validation_dataset
from copl_core.records import Choice, CoplError, ImportRow
from copl_core.tags import tag_key
from tests.evaluation.test_evaluate import about_own_prompts, rows


def named(dataset: EvalDataset, labels) -> set[tuple]:
    """Labels by name: who preferred which text."""
    return {
        (dataset.users[u], dataset.texts[a], dataset.texts[b], float(o))
        for u, a, b, o in zip(labels.user, labels.left, labels.right, labels.outcome, strict=True)
    }


def test_context_labels_are_given_and_never_scored():
    dataset = build_dataset(rows(range(4), range(6)), rows(range(3, 6), range(8)), context=3)
    assert len(dataset.context) == 2 * 3  # users 4 and 5 are new, user 3 is not
    assert len(dataset.test) == 8 + 2 * 5
    first = [(4, 0), (4, 1), (4, 2)]
    given = dataset.context.take(dataset.context.user == 4)
    assert [
        (u, dataset.prompts.index(dataset.texts[r][0])) for u, r in zip(given.user, given.left, strict=True)
    ] == first
    assert dataset.train.n_users == 4
    assert dataset.train.n_responses == 12
    assert len(dataset.texts) == 16
    assert dataset.new_user.sum() == 10 and dataset.new_text.sum() == 6


def test_strengths_of_a_file_reach_training_context_and_test_labels():
    strong = [replace(row, strength=1 + row.line % 3) for row in rows(range(6), range(6))]
    dataset = build_dataset(strong[:24], strong[18:], context=3)
    assert dataset.train.labels.strength.tolist() == [row.strength for row in strong[:24]]
    assert dataset.context.strength.tolist() == [row.strength for row in strong[24:27] + strong[30:33]]
    assert dataset.test.strength.tolist() == [row.strength for row in strong[18:24] + strong[27:30] + strong[33:]]


def test_tags_of_a_file_stay_with_their_labels_and_a_flipped_label_has_none():
    tagged = [replace(row, tags=("Kind ", "kind", str(row.line))) for row in rows(range(6), range(6))]
    dataset = build_dataset(tagged[:24], tagged[18:], context=3)
    given = [row.line for row in tagged[24:27] + tagged[30:33]]
    for tags, lines in ((dataset.train.tags, range(1, 25)), (dataset.context_tags, given)):
        assert tags.label.tolist() == [row for row in range(len(lines)) for _ in range(2)]
        assert tags.key.tolist() == [key for line in lines for key in (tag_key("kind"), tag_key(str(line)))]
    assert flipped(dataset).train.tags is None and flipped(dataset).context_tags is None
    assert build_dataset(rows(range(4), range(6)), tagged).train.tags is None


def test_without_context_every_label_is_scored():
    dataset = build_dataset(rows(range(4), range(6)), rows(range(4, 6), range(6)))
    assert len(dataset.context) == 0
    assert len(dataset.test) == 12


def test_no_test_label_left_is_an_error_in_a_sentence():
    with pytest.raises(CoplError, match="No decided test label remains"):
        build_dataset(rows(range(2), range(3)), rows(range(2, 3), range(3)), context=3)


def test_a_persons_group_is_the_one_that_all_their_rows_name():
    named = [
        replace(row, true_group="short" if row.annotator == "user 0" or row.line % 2 else "long")
        for row in rows(range(2), range(4))
    ]
    dataset = build_dataset(named, named)
    assert dataset.groups == ("short", None)
    assert len(dataset.test_groups) == 8


def test_new_prompts_of_one_file_are_kept_from_training():
    every = rows(range(3), range(10))
    train, test = only_new_prompts(every, every, seed=0, same=True)
    assert not {row.prompt for row in train} & {row.prompt for row in test}
    assert len({row.prompt for row in test}) == 2
    assert len(train) + len(test) == len(every)


def test_of_another_file_only_prompts_that_training_lacks_are_tested():
    train, test = only_new_prompts(rows(range(3), range(5)), rows(range(3), range(4, 7)), seed=0, same=False)
    assert {row.prompt for row in test} == {"Question 5?", "Question 6?"}
    assert len(train) == 15
    with pytest.raises(CoplError, match="--new-prompts"):
        only_new_prompts(rows(range(3), range(5)), rows(range(3), range(5)), seed=0, same=False)


def test_of_new_texts_both_are_new_and_labels_about_one_of_them_are_in_neither_set():
    every = rated(range(5), range(6))
    train, test = only_new_texts(every, every, seed=0, same=True)

    def texts(some: list[ImportRow]) -> set[tuple[str, str]]:
        return {(row.prompt, text) for row in some for text in (row.response_a, row.response_b)}

    assert train and test and not texts(train) & texts(test)
    held_out = texts(every) - texts(train)
    assert len(held_out) == round(0.2 * 24)
    assert {row.line for row in test} == {row.line for row in every if texts([row]) <= held_out}
    assert {row.line for row in train} == {row.line for row in every if not texts([row]) & held_out}
    assert only_new_texts(every, every, seed=1, same=True)[0] != train


def test_of_another_file_only_labels_about_two_texts_that_training_lacks_are_tested():
    train, test = only_new_texts(rated(range(3), range(5)), rated(range(3), range(4, 7)), seed=0, same=False)
    assert {row.prompt for row in test} == {"prompt 5", "prompt 6"} and len(train) == 90


def test_a_swapped_user_is_another_user_with_the_same_labels():
    dataset = build_dataset(rows(range(4), range(6)), rows(range(4), range(6)))
    twice = with_swapped_users(dataset, seed=0)
    n = len(dataset.test)
    assert (twice.test.user[n:] != dataset.test.user).all()
    np.testing.assert_array_equal(twice.test.left[:n], twice.test.left[n:])
    assert named(dataset, twice.test.take(np.arange(n))) == named(dataset, dataset.test)


def test_without_swapped_users_a_dataset_is_as_it_was():
    dataset = build_dataset(rows(range(4), range(6)), rows(range(4), range(6)))
    for again in (without_swapped_users(dataset), without_swapped_users(with_swapped_users(dataset, seed=0))):
        assert named(again, again.test) == named(dataset, dataset.test)
        assert (len(again.test), again.test_groups) == (len(dataset.test), dataset.test_groups)


def test_flipping_twice_is_nothing():
    every = rows(range(4), range(6))
    every[0] = replace(every[0], choice=Choice.TIE)
    dataset = build_dataset(every, rows(range(3, 6), range(6)), context=2)
    once, again = flipped(dataset), flipped(flipped(dataset))
    assert (once.train.labels.outcome + dataset.train.labels.outcome == 1).all()
    assert named(again, again.train.labels) == named(dataset, dataset.train.labels)
    assert named(once, once.test) == named(dataset, dataset.test)


def test_validation_labels_are_training_labels_that_are_not_learned():
    dataset = build_dataset(rows(range(20), range(12)), rows(range(15, 24), range(10, 16)), context=3)
    inner = validation_dataset(dataset, seed=0)
    learned, test = named(inner, inner.train.labels), named(inner, inner.test)
    assert test and learned and not learned & test
    assert learned | test | named(inner, inner.context) <= named(dataset, dataset.train.labels)


def edges(split, labels) -> set[tuple[int, int]]:
    """(user, response) of labels."""
    return {*zip(labels.user, labels.left, strict=True), *zip(labels.user, labels.right, strict=True)}


@pytest.mark.parametrize(
    ("train", "test", "context"),
    [
        ((range(20), range(12)), (range(20), range(12)), 0),
        ((range(20), range(12)), (range(15, 24), range(10, 16)), 3),
        ((range(30), range(4)), (range(30), range(4, 6)), 0),
    ],
    ids=["nothing new", "new users and prompts", "new texts"],
)
def test_no_response_of_a_validation_label_is_in_another_label_of_the_user(train, test, context):
    dataset = build_dataset(rated(*train), rated(*test, seed=1), context=context)
    for make in (validation_dataset, random_split):
        inner = make(dataset, seed=0)
        assert len(inner.test) and len(inner.train.labels) > len(dataset.train.labels) / 2
        given = edges(inner, inner.train.labels) | edges(inner, inner.context)
        assert not given & edges(inner, inner.test)


def rated(users, prompts, seed: int = 0) -> list[ImportRow]:
    """Rows of users who rate four answers to each prompt, which make six pairs."""
    rng = np.random.default_rng(seed)
    every = []
    for user, prompt in product(users, prompts):
        ratings = rng.random(4)
        every += [
            ImportRow(
                len(every) + 1,
                f"prompt {prompt}",
                f"answer {i} to {prompt}",
                f"answer {j} to {prompt}",
                choice=Choice.LEFT if ratings[i] > ratings[j] else Choice.RIGHT,
                annotator=f"user {user}",
            )
            for i, j in combinations(range(4), 2)
        ]
    return every


def test_validation_labels_are_like_the_test_labels():
    dataset = build_dataset(rows(range(20), range(12)), rows(range(16, 24), range(10, 16)), context=3)
    inner = validation_dataset(dataset, seed=0)
    assert inner.new_user.any() and inner.new_text.any()
    assert (np.bincount(inner.context.user)[np.unique(inner.context.user)] == 3).all()
    plain = validation_dataset(build_dataset(rows(range(20), range(12)), rows(range(20), range(12), seed=1)), seed=0)
    assert not plain.new_user.any() and len(plain.context) == 0


def few_new_users() -> EvalDataset:
    """A dataset where nearly all test labels are by known users, and half of the test users are new."""
    return build_dataset(rows(range(20), range(12)), rows(range(10), range(12), seed=1) + rows(range(20, 30), range(1)))


@pytest.mark.parametrize(
    "made", [lambda: build_dataset(*about_own_prompts()), few_new_users], ids=["unseen responses", "few new users"]
)
def test_validation_reads_no_label_of_a_control(made):
    dataset = made()
    twice = with_swapped_users(dataset, seed=0)
    plain, *others = (validation_dataset(one, seed=0) for one in (dataset, twice, flipped(dataset), flipped(twice)))
    for inner in others:
        for mine, theirs in ((inner.train.labels, plain.train.labels), (inner.test, plain.test)):
            assert {label[:3] for label in named(inner, mine)} == {label[:3] for label in named(plain, theirs)}


def test_the_ids_of_a_validation_dataset_are_rows_of_the_dataset():
    dataset = build_dataset(rows(range(20), range(12)), rows(range(16, 24), range(10, 16)), context=3)
    inner = validation_dataset(dataset, seed=0)
    assert [dataset.users[i] for i in inner.train.user_ids] == list(inner.users[: inner.train.n_users])
    assert [dataset.texts[i] for i in inner.train.response_ids] == list(inner.texts[: inner.train.n_responses])
    assert list(inner.train.texts()) == list(inner.texts[: inner.train.n_responses])
