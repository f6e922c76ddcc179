"""Comments on Reddit, of which one has more votes than the other: SHP."""

from __future__ import annotations

from collections.abc import Iterable

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, brief, who, whole_number
from copl_core.records import ImportRow


class Shp(Format):
    """Comments on Reddit, of which one has more votes than the other."""

    name = "shp"
    title = "A file like SHP"
    needs = "history, human_ref_A, human_ref_B and labels (1: A is preferred)"
    crowd = "Reddit voters"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("history", "human_ref_A", "human_ref_B")

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields, value = record.fields, record.fields.get("labels")
        label = int(value) if isinstance(value, bool) else whole_number(value)
        if label not in (0, 1) and not absent(value):
            raise BadRecord(f"labels is {brief(value)}; it must be 1 (A is preferred) or 0")
        annotator, by = who(fields)
        known = {"history", "human_ref_A", "human_ref_B", "labels", *by}
        yield reading.row(
            record,
            prompt=prompt_text(fields.get("history")),
            a=response_text("human_ref_A", fields.get("human_ref_A")),
            b=response_text("human_ref_B", fields.get("human_ref_B")),
            choice=None if label is None else "a" if label == 1 else "b",
            annotator=annotator or reading.options.annotator or self.crowd,
            context=[fields.get(name) for name in ("post_id", "c_root_id_A", "c_root_id_B")],
            meta=reading.rest(fields, known),
        )
