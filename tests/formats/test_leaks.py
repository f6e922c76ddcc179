"""What test labels share with training labels is counted, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.formats.files import open_file
from copl_core.formats.leaks import NEAR, RUN, LeakCheck, Leaks, near_texts

WORDS = [f"word{number}" for number in range(40)]


def found(train, test) -> Leaks:
    """Of labels (person, one response, the other), all to one prompt."""
    check = LeakCheck()
    for labels, is_test in ((train, False), (test, True)):
        for person, one, other in labels:
            check.add(person, ("Which?", one), ("Which?", other), test=is_test)
    return check.found()


def sentence(*replaced: tuple[int, str], n: int = 60) -> str:
    """A text of n different words, some of them replaced."""
    words = [f"{WORDS[number % 40]}{number}" for number in range(n)]
    for at, word in replaced:
        words[at] = word
    return " ".join(words)


def test_a_label_about_a_response_of_the_same_person_in_training_is_counted():
    train = [("ann", "a", "b"), ("bob", "c", "d")]
    assert found(train, [("ann", "b", "e"), ("ann", "c", "d"), ("bob", "a", "b")]).same_person == 1
    assert found(train, [("ann", "b", "a"), ("bob", " C", "x")]).same_person == 2  # also if case and spaces differ
    assert found(train, [("cem", "a", "b")]).sentences() == []


def test_texts_that_differ_in_case_and_spaces_are_not_new():
    leaks = found(
        [("ann", "One answer.", "Another one")], [("bob", "one  answer.\n", "a third"), ("bob", "a third", "Z")]
    )
    assert (leaks.n_new, leaks.same_text, leaks.near_text) == (3, 1, 0)
    assert leaks.sentences() == [
        "3 texts are in test labels only, but 1 is equal up to case and spaces to a text of the training labels."
    ]


def test_the_same_response_to_another_prompt_is_another_text():
    check = LeakCheck()
    check.add("ann", ("What?", "Yes"), ("What?", "No"), test=False)
    check.add("ann", ("Why?", "Yes"), ("Why?", "No"), test=True)
    assert check.found() == Leaks(1, 0, 2, 0, 0)


def test_a_text_with_one_word_of_sixty_replaced_is_nearly_the_same_and_one_with_two_is_not():
    one, two = sentence((59, "other")), sentence((20, "other"), (40, "word"))
    leaks = found([("ann", sentence(), "b")], [("bob", one, two)])
    assert (leaks.n_new, leaks.near_text) == (2, 1)
    assert leaks.sentences() == [
        "2 texts are in test labels only, but 1 is nearly equal to a text of the training labels."
    ]


def test_a_long_text_is_nearly_the_same_whichever_of_its_words_is_replaced():
    copies = [sentence((at, "other"), n=120) for at in range(120)]
    assert near_texts([sentence(n=40), sentence(n=120)], copies).all()


texts = st.lists(st.sampled_from(WORDS[:6]), max_size=14).map(" ".join)


@given(st.lists(texts, max_size=6), st.lists(texts, max_size=6))
def test_nearly_equal_texts_are_those_whose_runs_of_words_are(known, others):
    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}

    def near(one: set, other: set) -> bool:
        return bool(one and other) and len(one & other) / len(one | other) >= NEAR

    expected = [any(near(runs(text), runs(one)) for one in known) for text in others]
    assert near_texts(known, others).tolist() == expected


def test_a_common_phrase_hides_no_copy():
    phrase = "as a language model I have no opinion about this but here is what I know "
    known = [phrase + " ".join(np.random.default_rng(n).permutation(WORDS)) for n in range(300)]
    assert near_texts(known, [known[299] + " End.", phrase + " ".join(WORDS)]).tolist() == [True, False]


@pytest.mark.parametrize("split", [True, False])
def test_an_import_says_what_the_split_of_a_file_shares(tmp_path, split):
    rows = [
        {"prompt": "p", "response_a": "a", "response_b": "b", "choice": "a", "annotator": "ann", "split": "train"},
        {"prompt": "p", "response_a": "B", "response_b": "c", "choice": "b", "annotator": "ann", "split": "test"},
        {"prompt": "p", "response_a": "a", "response_b": "c", "choice": "b", "annotator": "bob", "split": "test"},
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if split or k != "split"}) for row in rows))
    notes = open_file(path).survey.notes
    assert [note.split(",")[0] for note in notes] == (
        [
            "1 of 2 test labels is about an answer that the same person also labels in training",
            "2 texts are in test labels only",
        ]
        if split
        else []
    )
