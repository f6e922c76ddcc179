"""Several answers to one prompt with ratings or ranks: what formats with more than two answers share.

Each two answers make a pair.  The better one is preferred, equal ones are a tie, and a pair without two ratings stays
without a label.  The distance of two ratings, on a scale of five steps, is the strength: less than one step is slightly
better, two steps or more are much better.  Ranks have an order and no distances, so they say no strength.

K answers make up to K (K − 1) / 2 labels of one act of rating, which use each text up to K − 1 times: they are not
independent.  ``meta`` says how many answers were rated together (``rated_together``), and gives each label the weight
1 / u, where u is how many labels of the act use the more used of its two texts (``reuse_weight``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from copl_core.formats.choices import Verdict, plain, unwrapped
from copl_core.formats.containers import Record
from copl_core.formats.fields import columns
from copl_core.formats.reading import NoAnnotator, Reading
from copl_core.formats.values import BadRecord
from copl_core.records import ImportRow

_STEPS = 5  # of the scale on which distances become strengths


@dataclass(frozen=True)
class Answer:
    """One answer, and how good it is for one annotator; None: not rated."""

    text: str
    score: float | None
    source: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Rated:
    """Answers to one prompt that one annotator has rated together.

    Args:
        scale: from the worst to the best possible rating; 0: ranks, whose distances mean nothing.
        ties: whether equal scores are a tie; otherwise such a pair stays without a label.
        verdict: of two answers, instead of their scores.
        more: further fields of the rows.
    """

    prompt: str
    answers: Sequence[Answer]
    annotator: str | None = None
    scale: float = 0
    context: Sequence[Any] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    ties: bool = True
    verdict: Verdict | None = None


def pairs(record: Record, reading: Reading, rated: Rated) -> Iterator[ImportRow]:
    """A row for each two of the answers; two that cannot be compared are left out with their numbers.

    Raises:
        BadRecord: there are fewer than two answers, or nobody says who rated them.
    """
    if len(rated.answers) < 2:
        raise BadRecord("there are fewer than two answers to compare")
    compared = {
        (i, j): _compared(one.score, other.score, rated)
        for (i, one), (j, other) in combinations(enumerate(rated.answers, 1), 2)
    }
    uses = Counter(i for both, (choice, _) in compared.items() if choice for i in both)
    for (i, j), (choice, strength) in compared.items():
        one, other = rated.answers[i - 1], rated.answers[j - 1]
        ids = {"response_ids": [one.id, other.id]} if one.id and other.id else {}
        together: dict[str, float] = {"rated_together": len(rated.answers)} if len(rated.answers) > 2 else {}
        if together and choice:
            together["reuse_weight"] = round(1 / max(uses[i], uses[j]), 6)
        try:
            yield reading.row(
                record,
                prompt=rated.prompt,
                a=one.text,
                b=other.text,
                choice=choice,
                annotator=rated.annotator,
                strength=strength,
                sources=(one.source, other.source),
                context=rated.context,
                meta={**rated.meta, **together, **ids},
                **rated.more,
            )
        except NoAnnotator:
            raise
        except BadRecord as bad:
            reading.left_out.append((record.number, f"answers {i} and {j}: {bad}"))


def _compared(one: float | None, other: float | None, rated: Rated) -> tuple[str | None, int | None]:
    """(choice, strength) of two ratings, of which the higher is better; ranks have no strength."""
    if rated.verdict and len(rated.answers) == 2:
        return rated.verdict.choice, rated.verdict.strength
    if one is None or other is None:
        return None, 1
    if one == other:
        return ("tie" if rated.ties else None), 1
    better = "a" if one > other else "b"
    if not rated.scale:
        return better, None
    steps = abs(one - other) / rated.scale * (_STEPS - 1)
    return better, 1 if steps < 1 else 2 if steps < 2 else 3


def best_of(value: Any, names: Sequence[str]) -> str | None:
    """The one of several answers that a value names: by its name, its letter or its number, from A and from 1 on."""
    word = plain(unwrapped(value))
    for at, name in enumerate(names):
        if word in (plain(name), chr(ord("a") + at), str(at + 1)):
            return name
    return None


def in_order(text: str, names: Sequence[str]) -> dict[str, float]:
    """Scores of answers from their order, the best first, as in ``B,D=A,C``; empty if a word is none of them."""
    found: dict[str, float] = {}
    for place, group in enumerate(text.split(",")):
        for word in group.split("="):
            if (name := best_of(word, names)) is None:
                return {}
            found[name] = -float(place)
    return found


def by_answer(rest: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several rows say, once where they agree, else as a list with one value per answer."""
    names = dict.fromkeys(name for one in rest for name in one)
    found = {name: [one.get(name) for one in rest] for name in names}
    return {name: values[0] if all(one == values[0] for one in values) else values for name, values in found.items()}


def texts_to_compare(fields: Mapping[str, Any]) -> tuple[str, list[str]]:
    """(the field of the prompt, the fields of the answers) among the texts of a tool's record.

    Raises:
        BadRecord: there is no prompt, or fewer than two answers.
    """
    prompt = next((name for name in columns(tuple(fields)).of("prompt")), None)
    if prompt is None:
        raise BadRecord(f"none of the fields {', '.join(list(fields)[:8])} is a prompt")
    return prompt, answers_to_compare(fields)


def answers_to_compare(fields: Mapping[str, Any]) -> list[str]:
    """The fields of the answers among the texts of a tool's record.

    Raises:
        BadRecord: there are fewer than two.
    """
    found = columns(tuple(fields))
    sides = [name for ours in ("response_a", "response_b") for name in found.of(ours)[:1]]
    if len(sides) < 2:
        raise BadRecord(f"the fields {', '.join(list(fields)[:8])} hold no two answers")
    stem = _stem(sides[0])
    alike = [name for name in fields if stem and _stem(name) == stem]
    return alike if len(alike) > 2 else sides


def _stem(name: str) -> str:
    """The name of a numbered answer without its number."""
    return re.sub(r"[-_ ]*\d+$", "", name) if re.search(r"\d$", name) else ""
