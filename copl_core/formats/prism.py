"""Scores of people on the answers of several models: PRISM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, by_answer, number, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, annotator_name, checked, source_name, whole_number
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
        utterances: list[Record] = []
        for record in records:
            if "conversation_history" in record.fields:
                yield from self._checked(record, reading, self._conversation(record, reading))
                continue
            if utterances and self._turn_of(utterances[0]) != self._turn_of(record):
                yield from self._checked(utterances[0], reading, self._utterances(utterances, reading))
                utterances = []
            utterances.append(record)
        if utterances:
            yield from self._checked(utterances[0], reading, self._utterances(utterances, reading))

    def _checked(self, record: Record, reading: Reading, rows: Iterator[ImportRow]) -> Iterator[ImportRow]:
        try:
            yield from rows
        except BadRecord as bad:
            reading.left_out.append((record.number, str(bad)))

    def _turn_of(self, record: Record) -> tuple[Any, ...]:
        names = ("conversation_id", "user_id", "turn", "interaction_id", "user_prompt")
        return tuple(record.fields.get(name) for name in names)

    def _conversation(self, record: Record, reading: Reading) -> Iterator[ImportRow]:
        fields = record.fields
        history = [one for one in fields["conversation_history"] or () if isinstance(one, dict)]
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
            chosen = next((one for one in answers if one.get("if_chosen")), answers[0])
            before.append(Turn("assistant", checked("content", chosen.get("content"))))

    def _utterances(self, records: list[Record], reading: Reading) -> Iterator[ImportRow]:
        fields = records[0].fields
        read = {"user_prompt", "model_response", "score", "model_name", "user_id", "if_chosen"}
        meta = by_answer([reading.rest(one.fields, read) for one in records])
        answers = [one.fields for one in records]
        if len(answers) > 1:  # a turn with one answer compares nothing
            prompt = prompt_text(fields.get("user_prompt"))
            yield from self._scored(records[0], reading, prompt, answers, "model_response", meta)

    def _scored(
        self, record: Record, reading: Reading, prompt: str, found: list[dict], text: str, meta: Mapping[str, Any]
    ) -> Iterator[ImportRow]:
        answers = [
            Answer(
                checked(text, one.get(text)), number(one.get("score")), source_name("model_name", one.get("model_name"))
            )
            for one in found
        ]
        context = [record.fields.get("conversation_id"), meta.get("turn")]
        user = annotator_name(record.fields.get("user_id"))
        yield from pairs(record, reading, Rated(prompt, answers, user, scale=99, meta=meta, context=context))
