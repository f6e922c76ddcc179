"""Ratings of a language model on several answers: UltraFeedback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import as_list, number, source_name, who
from copl_core.records import ImportRow, Kind


class UltraFeedback(Format):
    """Ratings of a language model: the mean of four aspects, or the one number that the file has."""

    name = "ultrafeedback"
    title = "A file like UltraFeedback"
    needs = "instruction and completions, each with a response and its ratings"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("instruction", "completions") and any(
            any(isinstance(inner, dict) for inner in as_list(one)) for one in sample.values("completions")
        )

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        completions = [one for one in as_list(fields.get("completions") or []) if isinstance(one, dict)]
        annotator, by = who(fields)
        answers = [
            Answer(
                response_text("response", one.get("response")),
                self._score(one),
                source_name("model", one.get("model")),
            )
            for one in completions
        ]
        meta = reading.rest(fields, {"instruction", "completions", "models", *by})
        prompt = prompt_text(fields.get("instruction"))
        more = {"kind": Kind.MODEL} if annotator is None else {}
        yield from pairs(record, reading, Rated(prompt, answers, annotator, scale=4, meta=meta, more=more))

    def _score(self, completion: dict[str, Any]) -> float | None:
        """From 1 to 5."""
        fine, overall = number(completion.get("fine-grained_score")), number(completion.get("overall_score"))
        if fine is not None:
            return fine
        aspects = completion.get("annotations")
        found = aspects.values() if isinstance(aspects, dict) else ()
        ratings = [number(one.get("Rating")) for one in found if isinstance(one, dict)]
        given = [one for one in ratings if one is not None]
        if given:
            return sum(given) / len(given)
        return None if overall is None else overall / 2
