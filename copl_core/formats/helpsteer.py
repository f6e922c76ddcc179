"""Ratings and preferences of HelpSteer 2 and 3."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, by_answer, number, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, brief, whole_number, word
from copl_core.records import ImportRow
from copl_core.turns import Turn, text_of


class HelpSteer2(Format):
    """Two answers per prompt, each on a row of its own with five ratings; helpfulness decides."""

    name = "helpsteer2"
    title = "A file like HelpSteer 2"
    needs = "prompt, response and helpfulness (0 to 4), with the answers to a prompt one after the other"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("prompt", "response", "helpfulness")

    def read(self, records: Iterable[Record], reading: Reading) -> Iterator[ImportRow]:
        together: list[Record] = []
        for record in records:
            if together and record.fields.get("prompt") != together[0].fields.get("prompt"):
                yield from self._rated(together, reading)
                together = []
            together.append(record)
        yield from self._rated(together, reading)

    def _rated(self, records: list[Record], reading: Reading) -> Iterator[ImportRow]:
        if not records:
            return
        try:
            answers = [
                Answer(response_text("response", one.fields.get("response")), number(one.fields.get("helpfulness")))
                for one in records
            ]
            rest = [reading.rest(one.fields, {"prompt", "response", "helpfulness"}) for one in records]
            rated = Rated(extra_id_prompt(records[0].fields.get("prompt")), answers, scale=4, meta=by_answer(rest))
            yield from pairs(records[0], reading, rated)
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
        yield reading.row(
            record,
            prompt=extra_id_prompt(fields.get(prompt)),
            a=response_text(a, fields.get(a)),
            b=response_text(b, fields.get(b)),
            choice=None if value is None else "tie" if value == 0 else "a" if value < 0 else "b",
            strength=abs(value or 0) or 1,
            context=[fields.get(name) for name in ("id", "dataset")],
            meta=reading.rest(fields, {prompt, a, b, preference}),
            split=word(fields.get("split")),
        )


def extra_id_prompt(value: Any) -> str:
    """A prompt of HelpSteer: messages, a text, or a text of turns between marks ``<extra_id_1>Role``."""
    if not isinstance(value, str) or "<extra_id_1>" not in value:
        return prompt_text(value)
    parts = re.split(r"\n?<extra_id_1>(User|Assistant|System)\n", "\n<extra_id_1>User\n" + value)
    turns = [Turn(role.lower(), text) for role, text in zip(parts[1::2], parts[2::2], strict=True)]
    return text_of([turn for turn in turns if turn.text or turn.role != "assistant"])
