"""What differs between two texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.features import FEATURE_NAMES
from copl_core.insight.texts import MOST_WORDS, clear_features, word_difference

ONE = "Boil the eggs for eight minutes, then put them into cold water."
OTHER = "Boil the eggs for ten long minutes, then put them into cold water and wait."


def marked(pieces) -> list[str]:
    return [text.strip() for text, differs in pieces if differs]


def test_the_words_that_differ_are_marked_in_both_texts():
    found = word_difference(ONE, OTHER)
    assert marked(found.first) == ["eight", "water."] and marked(found.second) == ["ten long", "water and wait."]
    assert found.comparable and found.shared > 0.7


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_are_the_texts_and_order_does_not_matter_for_what_is_shared(first, second):
    found = word_difference(first, second)
    for pieces, text in ((found.first, first), (found.second, second)):
        assert "".join(piece for piece, _ in pieces) == text
    assert 0 <= found.shared <= 1


def test_equal_texts_differ_in_nothing_and_unlike_texts_share_nothing():
    same = word_difference(ONE, ONE)
    assert same.shared == 1 and not marked(same.first)
    unlike = word_difference("The sea is wide", "Choose the other train")
    assert unlike.shared == 0.25 and not unlike.comparable  # a lone "the" between changes is no agreement
    assert word_difference("The sea is wide", "Choose other trains").shared == 0


def test_shared_words_count_wherever_they_stand_without_case_and_punctuation():
    found = word_difference("**Blot** it, then salt it.", "Salt: first! Then blot")
    assert found.shared == pytest.approx(6 / 9) and found.aligned == 0 and not found.comparable
    assert word_difference("a b c d", "d c b a").shared == 1


def test_texts_too_long_to_compare_count_as_completely_different():
    found = word_difference("word " * (MOST_WORDS + 1), "word")
    assert not found.aligned and not found.comparable
    assert "".join(p for p, _ in found.first) == "word " * (MOST_WORDS + 1)


def test_clear_features_name_what_each_text_has_more_of_beside_typical_differences():
    scale = np.full(len(FEATURE_NAMES), np.nan)
    scale[[FEATURE_NAMES.index("lists"), FEATURE_NAMES.index("questions")]] = 0.5
    more, fewer = clear_features("- one\n- two\n- three", "Is it one? Or two? Or three?", scale)
    assert more == ("lists",) and fewer == ("questions back to the reader",)
    assert clear_features(ONE, ONE, scale) == ((), ())


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_texts_are_compared_too(text):
    found = word_difference(text, ONE)
    assert "".join(piece for piece, _ in found.first) == text and found.shared == 0
