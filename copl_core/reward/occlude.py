"""Which words moved a reward: the same text with one piece after the other left out (occlusion).

The effect of piece i of a text t is ``r(t) − r(t without i)``: above zero, the piece speaks for the answer.  Effects of
the pieces need not add up to the reward, since pieces lean on one another.  A piece is a sentence; of a text with one
sentence, a clause; of one clause, a few words.

Plain text only, no model: whoever asks brings the rewards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST = 16  # pieces a text; more are joined, so that a long text takes no longer than this many readings
WORDS = 4  # of a piece where a text has no smaller parts
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|\n+\s*")
_CLAUSE = re.compile(r"(?<=[,;:–—])\s+")
_BULLET = re.compile(r"\s*(?:\d+[.)]|[-*•])\s*")  # the mark of a list item belongs to what follows it


@dataclass(frozen=True, slots=True)
class Occlusion:
    """The pieces of T texts and the T + P texts that are to be rewarded: the whole ones, then each with a gap."""

    pieces: tuple[tuple[str, ...], ...]  # of each text; joined they are the text
    variants: tuple[str, ...]  # (T + P,)

    def effects(self, rewards: np.ndarray) -> list[np.ndarray]:
        """Rewards (N, T + P) of the variants → for each text (N, its pieces): what each piece adds."""
        whole, found, start = rewards[:, : len(self.pieces)], [], len(self.pieces)
        for text, own in enumerate(self.pieces):
            found.append(whole[:, text, None] - rewards[:, start : start + len(own)])
            start += len(own)
        return found


def occlude(texts: Sequence[str]) -> Occlusion:
    """Everything that has to be read to know which pieces of the texts matter."""
    parts = tuple(tuple(pieces(text)) for text in texts)
    gaps = ["".join(own[:i] + own[i + 1 :]).strip() for own in parts for i in range(len(own))]
    return Occlusion(parts, (*texts, *gaps))


def pieces(text: str, most: int = MOST) -> list[str]:
    """Pieces of a text, white space and all: joined they are the text again."""
    found = _cut(text, _SENTENCE)
    if len(found) == 1:
        found = _cut(text, _CLAUSE)
    if len(found) == 1:
        words = re.findall(r"\s*\S+\s*", text)
        found = ["".join(words[i : i + WORDS]) for i in range(0, len(words), WORDS)] or [text]
    return _joined(found, most)


def _cut(text: str, ends: re.Pattern) -> list[str]:
    places = [0, *(match.end() for match in ends.finditer(text)), len(text)]
    found, mark = [], ""
    for start, end in zip(places, places[1:], strict=False):
        piece = mark + text[start:end]
        mark = piece if not piece.strip() or _BULLET.fullmatch(piece) else ""
        if not mark and piece:
            found.append(piece)
    if mark and found:
        found[-1] += mark
    return found or [text]


def _joined(found: list[str], most: int) -> list[str]:
    """At most ``most`` pieces of about the same number of the given ones."""
    bounds = np.linspace(0, len(found), min(most, len(found)) + 1).round().astype(int)
    return ["".join(found[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
