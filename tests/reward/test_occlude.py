"""Which words moved a reward: pieces make up their text, and the effect of a piece is what its absence costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.reward.occlude import MOST, occlude, pieces


@given(st.text(alphabet="ab .,!?\n-1", max_size=200))
def test_pieces_joined_are_the_text_again(text):
    assert "".join(pieces(text)) == text and 1 <= len(pieces(text)) <= MOST


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("1. Peel it.\n2. Cut it.", ["1. Peel it.\n", "2. Cut it."]),
        ("It costs 2.50 at most. Good.", ["It costs 2.50 at most. ", "Good."]),
        ("First this, then that", ["First this, ", "then that"]),
        ("a b c d e f", ["a b c d ", "e f"]),
        ("Yes", ["Yes"]),
    ],
)
def test_a_piece_is_a_sentence_or_else_a_clause_or_else_a_few_words(text, expected):
    assert pieces(text) == expected


def test_the_effect_of_a_piece_is_the_reward_that_is_lost_without_it():
    texts = ["Good. Bad. Neutral.", "Neutral. Good."]
    gaps = occlude(texts)
    assert gaps.variants[:2] == tuple(texts) and "Good. Neutral." in gaps.variants
    words = np.array([[text.count("Good") - text.count("Bad") for text in gaps.variants]])
    effects = gaps.effects(np.concatenate([words, -words]))
    assert [own.tolist() for own in effects] == [[[1, -1, 0], [-1, 1, 0]], [[0, 1], [0, -1]]]


def test_a_text_of_one_piece_has_nothing_to_leave_out():
    gaps = occlude(["Yes.", "Good. Bad."])
    rewards = np.arange(len(gaps.variants), dtype=float)[None]
    alone, other = gaps.effects(rewards)
    assert alone.tolist() == [[0.0]] and (other != 0).any()


def test_many_long_texts_share_the_pieces_of_a_request_and_short_ones_keep_theirs():
    long, short = " ".join(f"Sentence {i}." for i in range(14)), "One here. Two here."
    assert [len(own) for own in occlude([long, long]).pieces] == [14, 14]
    gaps = occlude([long, long, short, long])
    counts = [len(own) for own in gaps.pieces]
    assert counts == [10, 10, 2, 10] and len(gaps.variants) == 4 + sum(counts)
    assert ["".join(own) for own in gaps.pieces] == [long, long, short, long]
    assert [len(own) for own in occlude([long] * 20).pieces] == [4] * 20
