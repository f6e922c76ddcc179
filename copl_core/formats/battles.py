"""Battles of two models: LMArena (Chatbot Arena), MT-bench, and the CSV of Kaggle's LMSYS competition.

Side A stands on the left of the arena's page; our own exports say where nobody knows it, and which label a row is.  The
models of a conversation of several turns answer the same questions, each after its own earlier answers.  The prompt
then is what both have in common: the questions.  Each answer holds the turns of its model, with the questions between
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import answer_of, as_messages, n_in_common
from copl_core.formats.fields import columns
from copl_core.formats.interface import Format, Sample
from copl_core.formats.reading import Reading
from copl_core.formats.values import (
    BadRecord,
    absent,
    annotator_name,
    as_time,
    brief,
    checked,
    is_true,
    missing,
    present,
    source_name,
    who,
    whole_number,
)
from copl_core.formats.write_battles import KEY
from copl_core.records import ImportRow
from copl_core.turns import from_messages

_SESSIONS = ("judge_hash", "evaluation_session_id", "conversation_id")  # who votes, where no judge is named
_KAGGLE = ("winner_model_a", "winner_model_b", "winner_tie")


class Battles(Format):
    name = "lmarena"
    title = "A file of battles (LMArena, MT-bench)"
    needs = "conversation_a, conversation_b and winner, and who voted as judge"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("conversation_a", "conversation_b")

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        one, other = (_conversation(name, fields) for name in ("conversation_a", "conversation_b"))
        prompt, a, b = questions_and_answers(one, other)
        sources = source_name("model_a", fields.get("model_a")), source_name("model_b", fields.get("model_b"))
        annotator, by = self._judge(fields)
        key = fields.get(KEY)
        time = next((name for name in columns(tuple(fields)).of("time") if as_time(fields[name])), "")
        known = {"conversation_a", "conversation_b", "winner", "model_a", "model_b", "side_known", KEY, time, *by}
        yield reading.row(
            record,
            prompt=prompt,
            a=a,
            b=b,
            choice=self._winner(reading, fields, sources),
            annotator=annotator,
            sources=sources,
            left=None if fields.get("side_known") is False else "a",
            context=[fields.get(name) for name in ("question_id", "id", "turn", "tstamp", "timestamp")],
            created_at=as_time(fields.get(time)),
            meta=reading.rest(fields, known),
            label_key=None if absent(key) else checked(KEY, key, 64),
        )

    def _winner(self, reading: Reading, fields: dict[str, Any], sources: tuple[str | None, str | None]) -> str | None:
        value = fields.get("winner")
        if absent(value):
            return None
        if value in sources and sources[0] != sources[1]:
            return "a" if value == sources[0] else "b"
        verdict = reading.verdict(value)
        if verdict is None:
            raise BadRecord(f"winner is {brief(value)}; it must be model_a, model_b, tie or tie (bothbad)")
        return verdict.choice

    def _judge(self, fields: dict[str, Any]) -> tuple[str | None, set[str]]:
        judge = fields.get("judge")
        if isinstance(judge, list):
            return annotator_name(" ".join(map(str, judge))), {"judge"}
        found, by = who(fields)
        if found is None:
            name = present(fields, _SESSIONS)
            return (None, set()) if name is None else (annotator_name(fields[name]), {name})
        return found, by


class MtBench(Battles):
    """Votes on the first or the second turn of a conversation: two different prompts."""

    name = "mt-bench"
    title = "A file of MT-bench votes"
    needs = "question_id, conversation_a, conversation_b, turn (1 or 2), winner and judge"

    def recognise(self, sample: Sample) -> bool:
        if not (super().recognise(sample) and sample.has("question_id", "turn", "judge")):
            return False
        return any(2 * (whole_number(one.get("turn")) or 0) < _n_messages(one) for one in sample.records)


def _n_messages(record: dict[str, Any]) -> int:
    """Of a conversation; 0 where it is none, which the reading of the record explains."""
    try:
        return len(as_messages(record.get("conversation_a")) or ())
    except BadRecord:
        return 0


class KaggleLmsys(Format):
    name = "kaggle-lmsys"
    title = "The CSV of Kaggle's LMSYS competition"
    needs = "prompt, response_a and response_b as lists, and winner_model_a, winner_model_b, winner_tie"

    def recognise(self, sample: Sample) -> bool:
        texts = ("prompt", "response_a", "response_b")
        return sample.has(*texts, *_KAGGLE) or (
            sample.has(*texts) and all(_listed(sample.values(name)) for name in texts)
        )

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        questions, *answers = (_texts(name, fields.get(name)) for name in ("prompt", "response_a", "response_b"))
        prompt, a, b = questions_and_answers(*(_alternating(questions, side) for side in answers))
        won = [name for name in _KAGGLE if is_true(fields.get(name))]
        if len(won) != 1 and present(fields, _KAGGLE):
            raise BadRecord(f"{len(won)} of {', '.join(_KAGGLE)} are 1; exactly one must be")
        annotator, by = who(fields)
        known = {"prompt", "response_a", "response_b", "model_a", "model_b", "id", *_KAGGLE, *by}
        yield reading.row(
            record,
            prompt=prompt,
            a=a,
            b=b,
            choice=("a", "b", "tie")[_KAGGLE.index(won[0])] if won else None,
            annotator=annotator,
            sources=(source_name("model_a", fields.get("model_a")), source_name("model_b", fields.get("model_b"))),
            left="a",
            context=[fields.get("id")],
            meta={name: fields[name] for name in ("id",) if not missing(fields.get(name))}
            | reading.rest(fields, known),
        )


def questions_and_answers(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> tuple[str, str, str]:
    """(prompt, one answer, the other) of two models that got the same questions.

    The prompt holds the turns that both have in common, and all later questions.

    Raises:
        BadRecord: the models got different questions, or one gave no answer.
    """
    n = n_in_common(one, other)
    if n == len(one) == len(other):
        n = max((i for i, turn in enumerate(one) if turn[0] == "assistant"), default=n)
    rest = [[turn for turn in turns[n:] if turn[0] != "assistant"] for turns in (one, other)]
    if rest[0] != rest[1] or n == 0:
        raise BadRecord("the two conversations ask different things, so their answers cannot be compared")
    answers = [turns[n:] for turns in (one, other)]
    if not all(any(role == "assistant" for role, _ in turns) for turns in answers):
        raise BadRecord("one of the two conversations has no answer")
    a, b = map(answer_of, answers)
    return from_messages(one[:n] + rest[0]), a, b


def _conversation(name: str, fields: dict[str, Any]) -> list[tuple[str, str]]:
    """The turns that the vote is about: ``turn`` questions with their answers."""
    found = as_messages(fields.get(name))
    if found is None:
        raise BadRecord(f"{name} is {'missing' if missing(fields.get(name)) else 'no list of messages'}")
    turn = whole_number(fields.get("turn"))
    ends = [i for i, (role, _) in enumerate(found, 1) if role == "assistant"]
    return found[: ends[turn - 1]] if turn and 0 < turn <= len(ends) else found


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    if not isinstance(value, list):
        raise BadRecord(f"{name} is no list of texts")
    return [one if isinstance(one, str) else "" for one in value]


def _listed(values: list[Any]) -> bool:
    """Whether all texts are lists of texts, as JSON."""
    return bool(values) and all(isinstance(one, str) and one[:2] == '["' and one[-1:] == "]" for one in values)


def _alternating(questions: list[str], answers: list[str]) -> list[tuple[str, str]]:
    if len(questions) != len(answers):
        raise BadRecord(f"there are {len(questions)} questions and {len(answers)} answers")
    both = zip(questions, answers, strict=True)
    return [turn for one, two in both for turn in (("user", one), ("assistant", two))]
