"""Ratings and preferences of HelpSteer 2 and 3."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, by_answer, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, brief, number, who, whole_number, word
from copl_core.records import ImportRow
from copl_core.turns import Turn, text_of


class HelpSteer2(Format):
    """Two answers per prompt, each on a row of its own with five ratings; helpfulness decides."""

    name = "helpsteer2"
    title = "A file like HelpSteer 2"
    needs = "prompt, response and helpfulness (0 to 4), with two or more answers to a prompt"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("prompt", "response", "helpfulness")

    def read(self, records: Iterable[Record], reading: Reading) -> Iterator[ImportRow]:
        together: dict[Any, list[Record]] = {}
        for record in records:
            together.setdefault((str(record.fields.get("prompt")), who(record.fields)[0]), []).append(record)
        for (_, annotator), rows in together.items():
            yield from self._rated(rows, annotator, reading)

    def _rated(self, records: list[Record], annotator: str | None, reading: Reading) -> Iterator[ImportRow]:
        try:
            answers = [
                Answer(response_text("response", one.fields.get("response")), number(one.fields.get("helpfulness")))
                for one in records
            ]
            known = {"prompt", "response", "helpfulness", *who(records[0].fields)[1]}
            rest = [reading.rest(one.fields, known) for one in records]
            prompt = extra_id_prompt(records[0].fields.get("prompt"))
            yield from pairs(records[0], reading, Rated(prompt, answers, annotator, scale=4, meta=by_answer(rest)))
        except BadRecord as bad:
            reading.left_out.append((records[0].number, str(bad)))


class HelpSteerPreference(Format):
    """Preferences from −3 (the first is much better) to 3: HelpSteer 3, and the preferences of HelpSteer 2."""

    name = "helpsteer3"
    title = "A file like HelpSteer 3"
    needs = "context or prompt, two responses, and overall_preference (−3 to 3)"
    _fields = (("response1", "response2", "overall_preference"), ("response_1", "response_2", "preference_strength"))

    def recognise(self, sample: Sample) -> bool:
        return any(sample.has(*names) for names in self._fields)

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        a, b, preference = next((one for one in self._fields if one[2] in fields), self._fields[0])
        value = whole_number(fields.get(preference))
        if value is None and not absent(fields.get(preference)) or abs(value or 0) > 3:
            raise BadRecord(f"{preference} is {brief(fields.get(preference))}; it must be from -3 to 3")
        prompt = "context" if "context" in fields else "prompt"
        annotator, by = who(fields)
        yield reading.row(
            record,
            prompt=extra_id_prompt(fields.get(prompt)),
            a=response_text(a, fields.get(a)),
            b=response_text(b, fields.get(b)),
            choice=None if value is None else "tie" if value == 0 else "a" if value < 0 else "b",
            annotator=annotator,
            strength=abs(value or 0) or 1,
            context=[fields.get(name) for name in ("id", "dataset")],
            meta=reading.rest(fields, {prompt, a, b, preference, *by}),
            split=word(fields.get("split")),
        )


def extra_id_prompt(value: Any) -> str:
    """A prompt of HelpSteer: messages, a text, or a text of turns between marks ``<extra_id_1>Role``."""
    if not isinstance(value, str) or "<extra_id_1>" not in value:
        return prompt_text(value)
    parts = re.split(r"\n?<extra_id_1>(User|Assistant|System)\n", "\n<extra_id_1>User\n" + value)
    turns = [Turn(role.lower(), text) for role, text in zip(parts[1::2], parts[2::2], strict=True)]
    return text_of([turn for turn in turns if turn.text or turn.role != "assistant"])
