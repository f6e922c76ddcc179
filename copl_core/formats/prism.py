"""Scores of people on the answers of several models: PRISM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, by_answer, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import (
    BadRecord,
    annotator_name,
    as_list,
    checked,
    is_true,
    missing,
    number,
    source_name,
    whole_number,
)
from copl_core.records import ImportRow
from copl_core.turns import Turn, text_of


class Prism(Format):
    """Conversations of people with several models, who score each answer from 1 to 100."""

    name = "prism"
    title = "A file of PRISM conversations or utterances"
    needs = "conversation_history (or user_prompt and model_response) with scores, and user_id"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("conversation_history") or sample.has("user_prompt", "model_response", "score", "user_id")

    def read(self, records: Iterable[Record], reading: Reading) -> Iterator[ImportRow]:
        conversations: dict[tuple[Any, ...], list[Record]] = {}
        for record in records:
            if "conversation_history" in record.fields:
                yield from self._checked(record, reading, self._conversation(record, reading))
            else:
                key = tuple(str(record.fields.get(name)) for name in ("conversation_id", "user_id"))
                conversations.setdefault(key, []).append(record)
        for utterances in conversations.values():
            yield from self._checked(utterances[0], reading, self._utterances(utterances, reading))

    def _checked(self, record: Record, reading: Reading, rows: Iterator[ImportRow]) -> Iterator[ImportRow]:
        try:
            yield from rows
        except BadRecord as bad:
            reading.left_out.append((record.number, str(bad)))

    def _conversation(self, record: Record, reading: Reading) -> Iterator[ImportRow]:
        fields = record.fields
        history = [one for one in as_list(fields["conversation_history"] or []) if isinstance(one, dict)]
        meta = reading.rest(fields, {"conversation_history", "user_id", "conversation_turns"})
        before: list[Turn] = []
        for turn in sorted({whole_number(one.get("turn")) or 0 for one in history}):
            here = [one for one in history if (whole_number(one.get("turn")) or 0) == turn]
            question = next((one for one in here if one.get("role") == "user"), None)
            answers = [one for one in here if one.get("role") == "model"]
            if question is None or not answers:
                continue
            before.append(Turn("user", checked("content", question.get("content"))))
            if len(answers) > 1:
                more = {"turn": turn} if turn else {}
                yield from self._scored(record, reading, text_of(before), answers, "content", {**meta, **more})
            before.append(Turn("assistant", checked("content", self._chosen(answers).get("content"))))

    def _utterances(self, records: list[Record], reading: Reading) -> Iterator[ImportRow]:
        """The turns of one conversation, wherever they stand in the file: each after the answers that were chosen."""
        read = {"user_prompt", "model_response", "score", "model_name", "user_id", "if_chosen"}
        turns: dict[tuple[int, str], list[Record]] = {}
        for record in records:
            key = (whole_number(record.fields.get("turn")) or 0, str(record.fields.get("user_prompt")))
            turns.setdefault(key, []).append(record)
        before: list[Turn] = []
        for _, rows in sorted(turns.items(), key=lambda one: one[0][0]):
            answers = [one.fields for one in rows]
            before.append(Turn("user", checked("user_prompt", answers[0].get("user_prompt"))))
            if len(answers) > 1:  # a turn with one answer compares nothing
                meta = by_answer([reading.rest(one, read) for one in answers])
                yield from self._scored(rows[0], reading, text_of(before), answers, "model_response", meta)
            if not missing(records[0].fields.get("conversation_id")):
                chosen = self._chosen(answers).get("model_response")
                before.append(Turn("assistant", checked("model_response", chosen)))
            else:
                before = []

    def _chosen(self, answers: list[dict[str, Any]]) -> dict[str, Any]:
        return next((one for one in answers if is_true(one.get("if_chosen"))), answers[0])

    def _score(self, answer: Mapping[str, Any], scored: bool) -> float | None:
        """From 1 to 100; where no answer of a turn has a score, the one that was chosen is better than the others."""
        if scored:
            return number(answer.get("score"))
        return None if missing(answer.get("if_chosen")) else float(is_true(answer.get("if_chosen")))

    def _scored(
        self, record: Record, reading: Reading, prompt: str, found: list[dict], text: str, meta: Mapping[str, Any]
    ) -> Iterator[ImportRow]:
        scored = any(number(one.get("score")) is not None for one in found)
        answers = [
            Answer(
                checked(text, one.get(text)), self._score(one, scored), source_name("model_name", one.get("model_name"))
            )
            for one in found
        ]
        context = [record.fields.get("conversation_id"), meta.get("turn")]
        user = annotator_name(record.fields.get("user_id"))
        yield from pairs(record, reading, Rated(prompt, answers, user, 99 * scored, context, meta, ties=scored))
