"""What test labels share with training labels, so that they measure memory and not prediction.

Three ways, each with a count: a person's label about a response that the same person also labels in training (a ≻ c and
c ≻ b imply a ≻ b); a text that is new by name only, since a training text differs from it in case and spaces; and one
that is nearly a training text.  Texts are nearly equal if the sets of their runs of five words have a Jaccard index of
at least 0.9 (Broder, "On the resemblance and containment of documents", 1997).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from copl_core.records import ImportRow, counted

RUN = 5  # words
NEAR = 0.9
_LISTED = 50  # training texts that share a run, of which more are a common phrase
_COMPARED = 20  # training texts that share most of the compared runs
_WORD = re.compile(r"\w+")

TEST = "test"  # value of the field "split" of test rows
Text = tuple[str, str]  # prompt and response


@dataclass(frozen=True)
class Leaks:
    """What test labels share with training labels."""

    n_test: int  # labels
    same_person: int  # test labels about a response that the same person also labels in training
    n_new: int  # texts of the test labels that no training text equals
    same_text: int  # of these, texts that differ from a training text in case and spaces only
    near_text: int  # of the others, texts that are nearly a training text

    def sentences(self) -> list[str]:
        """One sentence for each way in which they share something."""
        found = []
        if self.same_person:
            of_all = f"{self.same_person:,} of {counted(self.n_test, 'test label')}"
            found.append(
                f"{of_all} {'is' if self.same_person == 1 else 'are'} about an answer that the same person also labels "
                "in training, and may follow from those labels (a ≻ c and c ≻ b imply a ≻ b): divide the labels by "
                "person and answer."
            )
        ways = ((self.same_text, "equal up to case and spaces"), (self.near_text, "nearly equal"))
        parts = [f"{n:,} {'is' if n == 1 else 'are'} {words}" for n, words in ways if n]
        if parts:
            only = f"{counted(self.n_new, 'text')} {'is' if self.n_new == 1 else 'are'} in test labels only"
            found.append(f"{only}, but {' and '.join(parts)} to a text of the training labels.")
        return found


@dataclass
class LeakCheck:
    """Collects labels of both sides, one at a time."""

    _persons: dict[Hashable, int] = field(default_factory=dict)
    _normal: dict[Text, bytes] = field(default_factory=dict)
    _texts: tuple[set[Text], set[Text]] = field(default_factory=lambda: (set(), set()))  # training, test
    _edges: set[tuple[int, bytes]] = field(default_factory=set)  # of training labels
    _tested: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def add(self, person: Hashable, one: Text, other: Text, *, test: bool) -> None:
        """A label of a person about two texts."""
        row = self._persons.setdefault(person, len(self._persons))
        ends = self._name(one), self._name(other)
        self._texts[test].update((one, other))
        if test:
            self._tested.append((row, *ends))
        else:
            self._edges.update((row, end) for end in ends)

    def _name(self, text: Text) -> bytes:
        if text not in self._normal:
            self._normal[text] = "\0".join(" ".join(part.casefold().split()) for part in text).encode()
        return self._normal[text]

    def found(self) -> Leaks:
        train, test = self._texts
        new = sorted(test - train)
        known = {self._normal[text] for text in train}
        other = [text for text in new if self._normal[text] not in known]
        same_person = sum((row, a) in self._edges or (row, b) in self._edges for row, a, b in self._tested)
        near = near_texts([text for _, text in sorted(train)], [text for _, text in other])
        return Leaks(len(self._tested), same_person, len(new), len(new) - len(other), int(near.sum()))


def of_own_split(rows: Iterable[ImportRow]) -> list[str]:
    """A sentence for each way in which the test labels of a file that names its split share something with the others.

    Rows without a label, and those whose split is not named, count on neither side.
    """
    check = LeakCheck()
    for row in rows:
        if row.split and row.choice is not None and row.annotator is not None:
            one, other = (row.prompt, row.response_a), (row.prompt, row.response_b)
            check.add(row.annotator, one, other, test=row.split == TEST)
    return check.found().sentences()


def near_texts(known: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Mask (M,) of ``texts`` (M,) that are nearly equal to one of ``known`` (N,).

    Two sets with a Jaccard index of ``NEAR`` share one of the first ⌊(1 − NEAR) n⌋ + 1 elements in any common order, so
    only these runs are looked up; of a run that many texts share only ``_LISTED`` are read.  Texts of fewer than
    ``RUN`` words are nearly equal to none.
    """
    if not texts or not known:
        return np.zeros(len(texts), bool)
    first = [_first(_runs(text)) for text in known]
    owner = np.repeat(np.arange(len(known)), [len(runs) for runs in first])
    listed = np.concatenate(first)
    order = np.argsort(listed, kind="stable")
    listed, owner = listed[order], owner[order]
    return np.array([_is_near(text, known, listed, owner) for text in texts], bool)


def _is_near(text: str, known: Sequence[str], listed: np.ndarray, owner: np.ndarray) -> bool:
    runs = _runs(text)
    starts = np.searchsorted(listed, first := _first(runs))
    ends = np.minimum(np.searchsorted(listed, first, side="right"), starts + _LISTED)
    shared = [owner[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    found, times = np.unique(np.concatenate([*shared, owner[:0]]), return_counts=True)
    for row in found[np.argsort(-times, kind="stable")][:_COMPARED].tolist():
        other = _runs(known[row])
        both = len(np.intersect1d(runs, other, assume_unique=True))
        if both >= NEAR * (len(runs) + len(other) - both):
            return True
    return False


def _runs(text: str) -> np.ndarray:
    """Sorted numbers of the different runs of ``RUN`` words of a text."""
    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.casefold())], np.uint64)
    if len(words) < RUN:
        return np.zeros(0, np.uint64)
    number = np.zeros(len(words) - RUN + 1, np.uint64)
    for start in range(RUN):
        number = (number ^ words[start : start + len(number)]) * np.uint64(0x9E3779B97F4A7C15)
        number ^= number >> np.uint64(29)
    return np.unique(number)


def _first(runs: np.ndarray) -> np.ndarray:
    return runs[: int((1 - NEAR) * len(runs) + 1e-9) + 1]
