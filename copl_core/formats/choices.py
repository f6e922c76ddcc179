"""The words in which files say which of two answers was chosen.

A word is understood whatever its case, spaces and punctuation.  A number has a meaning only where a file has a code
book: 1 and 2 name the first and the second answer, while 0 and 1 may be positions, or "no" and "yes", so a file with a
0 must say it (``--map a=0 --map b=1``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from typing import Any, NamedTuple

CHOICES = ("a", "b", "tie", "both_bad")
FROM_ONE = {"1": "a", "2": "b"}
_SIDES = {
    "a": ("a", "left", "first", "firstone", "lefthand", "1st"),
    "b": ("b", "right", "second", "secondone", "righthand", "2nd"),
}
_NOUNS = (
    "answer response model option output completion assistant text system choice candidate generation reply message "
    "item sample conversation summary side bot chatbot generator image"
).split()
_TIES = (
    "tie tied draw equal equals same both bothgood tiebothgood bothequal bothequallygood aboutthesame aboutequal "
    "thesame equallygood nopreference nodifference neutral indifferent eitherone atie itsatie similar comparable "
    "tieinconsistent bothacceptable bothgreat bothfine bothcorrect bothequivalent equivalent equallygreat"
).split()
_BOTH_BAD = (
    "bothbad tiebothbad bothbadtie neither bothpoor botharebad botharepoor bothwrong allbad neitherisgood neithergood "
    "equallybad bothequallybad bothunacceptable noneofthem noneofthese bothfail"
).split()
_ENDINGS = ("", "isbetter", "better", "wins", "won", "win", "ispreferred", "preferred", "ischosen", "isthebetterone")
_STRENGTHS = {
    1: ("slightly", "somewhat", "marginally", "alittle", "abit"),
    3: ("much", "significantly", "far", "clearly", "strongly", "definitely", "alot"),
}
_FILLERS = frozenset(
    "i we would do prefer prefers preferred choose chose chosen pick picked select selected is are was were be it its "
    "the to as an in my our opinion think that of two ones one".split()
)  # words of a sentence about a choice that say nothing of it
_SIGNS = re.compile(r"([ab]?)(>{1,3}|<{1,3}|=+|~+)([ab]?)")
_INNER = ("selected", "choices", "choice", "value", "label", "winner")  # names in which tools wrap one choice


class Verdict(NamedTuple):
    """A choice between "a" and "b", with the strength that its words have, if they have one."""

    choice: str  # one of CHOICES
    strength: int | None = None


def _words() -> Iterator[tuple[str, str]]:
    yield from ((word, "tie") for word in _TIES)
    yield from ((word, "both_bad") for word in _BOTH_BAD)
    for number, (side, names) in enumerate(_SIDES.items(), 1):
        for ending in _ENDINGS:
            yield from ((name + ending, side) for name in names)
            for noun in _NOUNS:
                yield from ((noun + name + ending, side) for name in (*names, str(number)))
                yield from (("the" + name + noun + ending, side) for name in names)
                yield from ((name + noun + ending, side) for name in names)


_MEANING = dict(_words())


def understand(
    value: Any,
    *,
    a: Set[str] = frozenset(),
    b: Set[str] = frozenset(),
    codes: Mapping[str, str] | None = None,
    numbers: bool = True,
) -> Verdict | None:
    """What a value says, or None.

    Args:
        value: as the file has it: a word, a number, or a list or object around one.
        a: names of the first answer (``plain``): its field, its model.  Likewise ``b``.
        codes: what the user says that values mean, by ``plain`` value; it comes before everything else.
        numbers: whether 1 and 2 name the answers.
    """
    word = plain(unwrapped(value))
    if codes and word in codes:
        return Verdict(codes[word])
    named_a, named_b = word in a, word in b
    if named_a != named_b and word:
        return Verdict("a" if named_a else "b")
    if is_number(word):
        return Verdict(FROM_ONE[word]) if numbers and word in FROM_ONE else None
    return _understood(word) or (_understood(_gist(value)) if isinstance(value := unwrapped(value), str) else None)


@lru_cache(1000)
def _gist(value: str) -> str:
    """A sentence without the words that say nothing: ``I prefer the first one`` is ``first``; empty for a long one."""
    sentence = re.split(r"\b(?:than|over)\b", value.casefold(), maxsplit=1)[0]
    words = re.findall(r"[\w<>=~]+", sentence)
    return "".join(word for word in words if word not in _FILLERS) if len(words) <= 10 else ""


@lru_cache(1000)
def _understood(word: str) -> Verdict | None:
    if word in _MEANING:
        return Verdict(_MEANING[word])
    if signs := _SIGNS.fullmatch(word):
        return _by_signs(*signs.groups())
    for strength, adverbs in _STRENGTHS.items():
        for adverb in adverbs:
            side = _MEANING.get(word.replace(adverb, "", 1)) if adverb in word else None
            if side in ("a", "b"):
                return Verdict(side, strength)
    return None


def _by_signs(left: str, signs: str, right: str) -> Verdict | None:
    """``A>>B`` and the like: one sign is slightly better, more are much better."""
    if left == right and left:
        return None
    if signs[0] in "=~":
        return Verdict("tie")
    better, worse = ("b", "a") if left == "b" or right == "a" else ("a", "b")
    return Verdict(better if signs[0] == ">" else worse, 1 if len(signs) == 1 else 3)


def plain(value: Any) -> str:
    """A value as a word to compare: small letters, without spaces and punctuation; 1.0 is 1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(int(value)) if value == value and abs(value) < 1e15 and value == int(value) else str(value)
    if not isinstance(value, str) or len(value) > 200:
        return ""
    return _plain_word(value)


@lru_cache(5000)
def _plain_word(value: str) -> str:
    word = value.strip().casefold()
    if re.fullmatch(r"[-+]?\d+(\.0+)?", word):
        return str(int(float(word)))
    return re.sub(r"[^\w<>=~]|_", "", word)


def is_number(word: str) -> bool:
    """Whether a plain word is a number or a truth value: what it means is up to the file."""
    return word in ("true", "false", "yes", "no") or re.fullmatch(r"-?\d+(\.\d+)?", word) is not None


def unwrapped(value: Any) -> Any:
    """The one value in a list or an object of a tool, also written as JSON in a cell."""
    for _ in range(4):
        if isinstance(value, str) and value[:1] in "[{" and value[-1:] in "]}":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return value
        elif isinstance(value, list) and len(value) == 1:
            value = value[0]
        elif isinstance(value, dict) and (inner := [name for name in _INNER if name in value]):
            value = value[inner[0]]
        else:
            break
    return value
