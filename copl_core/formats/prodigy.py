"""Annotations of Prodigy, from its choice view: options of a task, and the ids of those that were accepted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, annotator_name, as_time, present
from copl_core.records import ImportRow

_PROMPTS = ("prompt", "question", "text", "html", "input")
_WHO = ("_annotator_id", "_session_id")
_OF_TOOL = (
    "_input_hash", "_task_hash", "_view_id", "_timestamp", "_is_binary", "config", "options", "accept", "answer",
    "choice_style", *_WHO,
)  # fmt: skip


class Prodigy(Format):
    name = "prodigy"
    title = "A file of Prodigy annotations"
    needs = "a prompt (or text), options with ids and texts, and accept"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("options") and (sample.has("_task_hash") or sample.has("accept", "answer"))

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        prompt = present(fields, _PROMPTS)
        if prompt is None:
            raise BadRecord(f"none of {', '.join(_PROMPTS)} is there")
        options = [one for one in fields.get("options") or () if isinstance(one, dict)]
        accepted = set(map(str, fields.get("accept") or ())) if fields.get("answer", "accept") == "accept" else set()
        if fields.get("answer") in ("ignore", "reject"):
            reading.ignored[f"answer: {fields['answer']}"] += 1  # the task was skipped
        answers = [
            Answer(_text(one), float(str(one.get("id")) in accepted) if accepted else None, id=str(one.get("id")))
            for one in options
        ]
        who = present(fields, _WHO)
        rated = Rated(
            prompt_text(fields[prompt]),
            answers,
            None if who is None else annotator_name(fields[who]),
            context=[fields.get("_task_hash"), fields.get("_timestamp")],
            meta=reading.rest(fields, {prompt, *_OF_TOOL}),
            more={"created_at": as_time(fields.get("_timestamp"))},
            ties=False,  # two options that were both accepted, or both not, are not compared
        )
        yield from pairs(record, reading, rated)


def _text(option: dict[str, Any]) -> str:
    text = next((option[name] for name in ("text", "html", "response") if isinstance(option.get(name), str)), None)
    if text is None:
        raise BadRecord("an option has no text")
    return text
