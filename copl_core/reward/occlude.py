"""Which words changed a reward: the reward of a text without each of its pieces in turn (occlusion).

The effect of piece i of a text t is ``r(t) − r(t without i)``; above zero, the piece speaks for the response.  The
effects need not sum to the reward, since pieces depend on each other.  A piece is a sentence; in a text of one sentence
it is a clause, and in one clause a few words.

This file handles plain text only, without a model; the caller provides the rewards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST = 16  # pieces per text; more are joined, so that a long text needs at most this many more rewards
MOST_TOGETHER, FEWEST = 32, 4  # pieces of all texts of a request, which the longest give up first; of one text at least
WORDS = 4  # per piece where a text has neither several sentences nor several clauses
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|\n+\s*")
_CLAUSE = re.compile(r"(?<=[,;:–—])\s+")
_BULLET = re.compile(r"\s*(?:\d+[.)]|[-*•])\s*")  # the mark of a list item belongs to what follows it


@dataclass(frozen=True, slots=True)
class Occlusion:
    """The pieces of T texts, P in all, and the T + P texts to reward: the whole texts, then those without one piece."""

    pieces: tuple[tuple[str, ...], ...]  # of each text; joined they give the text
    variants: tuple[str, ...]  # (T + P,)

    def effects(self, rewards: np.ndarray) -> list[np.ndarray]:
        """Rewards (N, T + P) of the variants → the effect of each piece, an array (N, pieces) for each text.

        A text of one piece has an effect of 0: nothing would be left of it.
        """
        whole, found, start = rewards[:, : len(self.pieces)], [], len(self.pieces)
        for text, parts in enumerate(self.pieces):
            effect = whole[:, text, None] - rewards[:, start : start + len(parts)]
            found.append(effect if len(parts) > 1 else np.zeros_like(effect))
            start += len(parts)
        return found


def occlude(texts: Sequence[str]) -> Occlusion:
    """The texts whose rewards show which pieces matter."""
    split = _within(texts, MOST_TOGETHER)
    without_one = ["".join(parts[:i] + parts[i + 1 :]).strip() for parts in split for i in range(len(parts))]
    return Occlusion(split, (*texts, *without_one))


def _within(texts: Sequence[str], together: int) -> tuple[tuple[str, ...], ...]:
    """The pieces of each text, with the largest limit per text that keeps ``together``."""
    split: tuple[tuple[str, ...], ...] = ()
    for most in range(MOST, FEWEST - 1, -1):
        split = tuple(tuple(pieces(text, most)) for text in texts)
        if sum(map(len, split)) <= together:
            break
    return split


def pieces(text: str, most: int = MOST) -> list[str]:
    """The pieces of a text with their white space; joined they give the text."""
    found = _cut(text, _SENTENCE)
    if len(found) == 1:
        found = _cut(text, _CLAUSE)
    if len(found) == 1:
        words = re.findall(r"\s*\S+\s*", text)
        found = ["".join(words[i : i + WORDS]) for i in range(0, len(words), WORDS)] or [text]
    return _joined(found, most)


def _cut(text: str, ends: re.Pattern) -> list[str]:
    bounds = [0, *(match.end() for match in ends.finditer(text)), len(text)]
    found, mark = [], ""
    for start, end in zip(bounds, bounds[1:], strict=False):
        piece = mark + text[start:end]
        mark = piece if not piece.strip() or _BULLET.fullmatch(piece) else ""
        if not mark and piece:
            found.append(piece)
    if mark and found:
        found[-1] += mark
    return found or [text]


def _joined(found: list[str], most: int) -> list[str]:
    """At most ``most`` pieces, each of about the same number of the given ones."""
    bounds = np.linspace(0, len(found), min(most, len(found)) + 1).round().astype(int)
    return ["".join(found[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
