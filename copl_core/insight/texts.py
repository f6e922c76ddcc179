"""What differs between two texts, word by word and in their measured features.  Numpy and difflib only."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS, measure_many

MOST_WORDS = 1_500  # of one text; the time of a comparison grows with the square of it
COMPARABLE_FROM = 0.35  # share of words in shared passages below which highlighting words says nothing
_WORD = re.compile(r"\s*\S+")
_EDGES = re.compile(r"^[^\w]+|[^\w]+$")  # punctuation and marks of Markdown around a word
_CLEAR = 1.0  # typical differences between two responses from which a feature is worth mentioning

Piece = tuple[str, bool]  # a stretch of text, and whether it differs from the other text


@dataclass(frozen=True, slots=True)
class TextDifference:
    """Two texts cut into pieces that join up to the texts."""

    first: tuple[Piece, ...]
    second: tuple[Piece, ...]
    shared: float  # share of the words that occur in both, wherever they stand, 0 to 1
    aligned: float  # share of the words in passages that both texts contain, 0 to 1

    @property
    def comparable(self) -> bool:
        """Whether enough passages are shared for the different words to stand out."""
        return self.aligned >= COMPARABLE_FROM


def word_difference(first: str, second: str) -> TextDifference:
    """The words that differ, by the longest runs of shared words; a single shared word between changes is no run.

    Texts of more than ``MOST_WORDS`` words are not aligned: they count as completely different.
    """
    words = [_WORD.findall(text) for text in (first, second)]
    if max(map(len, words)) > MOST_WORDS:
        return TextDifference(((first, True),), ((second, True),), shared_words(*words), 0.0)
    keys = [[word.strip() for word in own] for own in words]
    same = [np.zeros(len(own), bool) for own in keys]
    whole = keys[0] == keys[1]
    for a, b, size in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks():
        if size > 1 or whole:
            same[0][a : a + size] = same[1][b : b + size] = True
    total = sum(map(len, words))
    aligned = float(sum(mask.sum() for mask in same) / total) if total else 1.0
    ends = [text[sum(map(len, own)) :] for text, own in zip((first, second), words, strict=True)]
    one, other = (_pieces(own, mask, end) for own, mask, end in zip(words, same, ends, strict=True))
    return TextDifference(one, other, shared_words(*words), aligned)


def shared_words(first: list[str], second: list[str]) -> float:
    """Share of two lists of words that has a counterpart in the other list; case and punctuation do not count."""
    one, other = (
        Counter(filter(None, (_EDGES.sub("", word.strip()).casefold() for word in own))) for own in (first, second)
    )
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


def _pieces(words: list[str], same: np.ndarray, end: str) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for word, equal in zip(words, same.tolist(), strict=True):
        if pieces and pieces[-1][1] != equal:
            pieces[-1] = (pieces[-1][0] + word, not equal)
        else:
            pieces.append((word, not equal))
    if end:
        pieces.append((end, False))
    return tuple(pieces)


def clear_features(
    first: str, second: str, scale: np.ndarray, most: int = 3
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """In words, the features of which the first text has clearly more, and those of the second; clearest first.

    Args:
        scale: (F,) typical differences (``insight.taste.typical``); NaN excludes a feature.
    """
    texts = measure_many([first, second])
    apart = np.nan_to_num((texts[0] - texts[1]) / scale)
    clear = [f for f in np.argsort(-np.abs(apart), kind="stable").tolist() if abs(apart[f]) >= _CLEAR]
    more = [FEATURE_WORDS[FEATURE_NAMES[f]][0] for f in clear if apart[f] > 0]
    fewer = [FEATURE_WORDS[FEATURE_NAMES[f]][0] for f in clear if apart[f] < 0]
    return tuple(more[:most]), tuple(fewer[:most])
