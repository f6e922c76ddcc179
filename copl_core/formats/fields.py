"""Names of fields: ours, and those that other people have for the same thing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

# The fields of our own rows, in the order in which messages list them.
OURS = (
    "prompt", "response_a", "response_b", "choice", "annotator", "system", "history", "left", "strength", "reason",
    "tags", "time", "milliseconds", "model_a", "model_b", "dataset", "pair_id", "group", "split", "kind", "taste",
    "excluded", "quarantined", "label_key", "meta",
)  # fmt: skip
PROMPTS = (
    "question instruction query userprompt input context messages conversation conversations chat dialogue dialog post"
).split()
ANNOTATORS = (
    "annotatorid annotatorname user userid username rater raterid worker workerid labeler labelerid labeller "
    "labellerid judge judgeid participant participantid reviewer reviewerid evaluator evaluatorid respondent "
    "respondentid person completedby annotatorindex judgemodel labellingmodel labelingmodel evaluatormodel "
    "ratedby annotatedby labeledby labelledby judgedby by"
).split()
CHOICES = (
    "winner preference preferred preferredresponse preferredanswer humanpreference label labels choices verdict "
    "preferredmodel bettermodel winnermodel winningmodel decision better betterresponse betteranswer vote selected "
    "betterresponseid preferredid chosenid winnerid "
    "selection comparison result outcome best bestresponse bestanswer betterone judgment"
).split()
CHOICES.append("judge" + "ment")
TIMES = ("timestamp", "tstamp", "createdat", "submittedat", "datetime", "date", "updatedat")
HISTORIES = ("conversationhistory", "chathistory", "previousmessages", "previousturns", "context")
LISTS = "responses completions answers outputs candidates generations options replies summaries".split()
RATINGS = ("rating", "score", "stars", "quality")
SYSTEMS = ("systemprompt", "systemmessage")
REASONS = ("rationale", "explanation", "justification")
_SIDES = (("a", "b"), ("1", "2"), ("left", "right"), ("first", "second"), ("0", "1"))
_FORMS = ("{noun}{side}", "{side}{noun}", "{noun}s{side}", "model{side}{noun}", "assistant{side}{noun}",
          "system{side}{noun}", "{noun}model{side}", "{noun}from{side}")  # fmt: skip
_ANSWERS = "response answer completion output text option candidate reply generation modeloutput modelresponse".split()
_SOURCES = ("model", "source", "generator", "modelname", "system")
_OTHER_NAMES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "prompt": PROMPTS,
        "annotator": ANNOTATORS,
        "time": TIMES,
        "system": SYSTEMS,
        "reason": REASONS,
        "history": HISTORIES,
    }
)


@dataclass(frozen=True)
class Columns:
    """Which fields of a record hold what; the first with a value counts.

    Args:
        by_name: fields by name of ours.
        guesses: fields that may hold the choice, by their names.
        ratings: the fields that rate the two answers, or none.
    """

    by_name: Mapping[str, tuple[str, ...]]
    guesses: tuple[str, ...]
    ratings: tuple[str, ...] = ()

    def of(self, name: str) -> tuple[str, ...]:
        return self.by_name.get(name, ())


def plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(256)
def columns(fields: tuple[str, ...], named: tuple[tuple[str, str], ...] = ()) -> Columns:
    """Find our fields among those of a record.

    Args:
        fields: names of the record's fields.
        named: (ours, theirs) as the user says it; a name that is given is the only one.
    """
    plain = {name: plain_name(name) for name in fields}
    mapped = dict(named)
    found: dict[str, tuple[str, ...]] = {}
    for ours in OURS:
        if ours in mapped:
            found[ours] = (mapped[ours],)
            continue
        exact = [name for name in fields if name == ours]
        exact += [name for name in fields if name != ours and plain[name] == plain_name(ours)]
        others = [name for other in _OTHER_NAMES.get(ours, ()) for name in fields if plain[name] == other]
        found[ours] = tuple(exact + others)
    for a, b, nouns in (("response_a", "response_b", _ANSWERS), ("model_a", "model_b", _SOURCES)):
        if not (found[a] and found[b]) and (pair := _two_sides(plain, nouns)):
            found[a], found[b] = (found[a] or pair[:1]), (found[b] or pair[1:])
    if not (found["response_a"] or found["response_b"]) and found["prompt"]:
        _bare_sides(found, plain)
    used = {name for names in found.values() for name in names}
    guesses = () if "choice" in mapped else tuple(
        name for other in CHOICES for name in fields if plain[name] == other and name not in used
    )  # fmt: skip
    return Columns({ours: names for ours, names in found.items() if names}, guesses, _two_sides(plain, RATINGS))


def _two_sides(plain: Mapping[str, str], nouns: Sequence[str]) -> tuple[str, ...]:
    """The fields of the two answers (or models): a noun with a side after or before it."""
    by_plain = {word: name for name, word in plain.items()}
    for noun in nouns:
        for a, b in _SIDES:
            for form in _FORMS:
                first, second = form.format(noun=noun, side=a), form.format(noun=noun, side=b)
                if first in by_plain and second in by_plain:
                    return by_plain[first], by_plain[second]
    return ()


def _bare_sides(found: dict[str, tuple[str, ...]], plain: Mapping[str, str]) -> None:
    """Two answers that have no name but their side, as in ``prompt, a, b``."""
    by_plain = {word: name for name, word in plain.items()}
    for a, b in (("a", "b"), ("left", "right"), ("first", "second")):
        if a in by_plain and b in by_plain:
            found["response_a"], found["response_b"] = (by_plain[a],), (by_plain[b],)
            found["left"] = tuple(name for name in found["left"] if name != by_plain[a])
            return
