"""Preferences between two outputs, mostly of language models: AlpacaEval and AlpacaFarm."""

from __future__ import annotations

from collections.abc import Iterable

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, brief, checked, number, source_name, who
from copl_core.records import ImportRow, Kind


class AlpacaEval(Format):
    """Annotations of AlpacaEval and AlpacaFarm: 1 prefers the first output, 2 the second, and 0 or 1.5 neither."""

    name = "alpaca-eval"
    title = "A file of AlpacaEval annotations"
    needs = "instruction, output_1, output_2, preference (1 to 2) and annotator"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("instruction", "output_1", "output_2")

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        value = number(fields.get("preference"))
        if (value is None and not absent(fields.get("preference"))) or not 0 <= (value or 0) <= 2:
            raise BadRecord(f"preference is {brief(fields.get('preference'))}; it must be from 1 to 2, or 0 for a tie")
        annotator, by = who(fields)
        known = {"instruction", "input", "output_1", "output_2", "preference", "generator_1", "generator_2", *by}
        context = fields.get("input")
        question = prompt_text(fields.get("instruction"))
        sources = tuple(source_name(f"generator_{n}", fields.get(f"generator_{n}")) for n in (1, 2))
        yield reading.row(
            record,
            prompt=question if absent(context) else f"{question}\n\n{checked('input', context)}",
            a=response_text("output_1", fields.get("output_1")),
            b=response_text("output_2", fields.get("output_2")),
            choice=None if value is None else "tie" if value in (0, 1.5) else "a" if 0 < value < 1.5 else "b",
            annotator=annotator,
            sources=(sources[0], sources[1]),
            context=[fields.get("dataset")],
            meta=reading.rest(fields, known),
            kind=self._kind(annotator),
        )

    def _kind(self, annotator: str | None) -> Kind | None:
        """People have numbers here, and models have names; None: the record names nobody."""
        if annotator is None:
            return None
        return Kind.HUMAN if annotator.isdigit() else Kind.MODEL
