"""Annotations of Prodigy, from its choice view: options of a task, and the ids of those that were accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from copl_core.formats.choices import Verdict
from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, answers_to_compare, pairs
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
    """Tasks with options, of which some were accepted, and tasks with two outputs (``compare``)."""

    name = "prodigy"
    title = "A file of Prodigy annotations"
    needs = "a prompt (or text), options with ids and texts, and accept"

    def recognise(self, sample: Sample) -> bool:
        if sample.has("accept", "reject", "answer"):
            return sample.any("accept", dict) and sample.any("reject", dict)
        return sample.has("options") and (sample.has("_task_hash") or sample.has("accept", "answer"))

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        if fields.get("answer") in ("ignore", "reject") and not _is_comparison(fields):
            reading.ignored[f"answer: {fields['answer']}"] += 1  # the task was skipped
        prompt, answers, verdict, read = _comparison(fields) if _is_comparison(fields) else _choice(reading, fields)
        by = present(fields, _WHO)
        rated = Rated(
            prompt,
            answers,
            None if by is None else annotator_name(fields[by]),
            context=[fields.get("_task_hash"), fields.get("_timestamp")],
            meta=reading.rest(fields, {*read, *_OF_TOOL}),
            more={"created_at": as_time(fields.get("_timestamp"))},
            ties=False,  # two options that were both accepted, or both not, are not compared
            verdict=verdict,
        )
        yield from pairs(record, reading, rated)


_Task = tuple[str, list[Answer], Verdict | None, set[str]]  # prompt, answers, verdict on two, the fields that were read


def _is_comparison(fields: Mapping[str, Any]) -> bool:
    return isinstance(fields.get("accept"), dict) and isinstance(fields.get("reject"), dict)


def _comparison(fields: Mapping[str, Any]) -> _Task:
    """Two outputs: the answer accepts the one or the other; ``mapping`` says which model is which."""
    question = fields.get("input")
    prompt = prompt_text(_text(question) if isinstance(question, dict) else question)
    models = {side: name for name, side in (fields.get("mapping") or {}).items() if isinstance(side, str)}
    answers = [Answer(_text(fields[side]), None, models.get(side)) for side in ("accept", "reject")]
    verdict = {"accept": Verdict("a"), "reject": Verdict("b")}.get(str(fields.get("answer")))
    return prompt, answers, verdict, {"input", "reject", "mapping"}


def _choice(reading: Reading, fields: Mapping[str, Any]) -> _Task:
    """Options of which some are accepted; options in words for a choice speak of two answers elsewhere in the task."""
    prompt = present(fields, _PROMPTS)
    if prompt is None:
        raise BadRecord(f"none of {', '.join(_PROMPTS)} is there")
    options = [one for one in fields.get("options") or () if isinstance(one, dict)]
    accepted = set(map(str, fields.get("accept") or ())) if fields.get("answer", "accept") == "accept" else set()
    words = {str(one.get("id")): reading.verdict(_text(one)) for one in options}
    ties = [one for one in options if (means := words[str(one.get("id"))]) and means.choice in ("tie", "both_bad")]
    chosen = words.get(next(iter(accepted))) if len(accepted) == 1 else None
    if options and all(words.values()):
        names = answers_to_compare(fields)
        answers = [Answer(response_text(name, fields[name]), None) for name in names]
        return prompt_text(fields[prompt]), answers, chosen, {prompt, *names}
    answers = [
        Answer(_text(one), float(str(one.get("id")) in accepted) if accepted else None, id=str(one.get("id")))
        for one in options
        if one not in ties
    ]
    tied = chosen if any(str(one.get("id")) in accepted for one in ties) else None
    return prompt_text(fields[prompt]), answers, tied, {prompt}


def _text(option: Mapping[str, Any]) -> str:
    text = next((option[name] for name in ("text", "html", "response") if isinstance(option.get(name), str)), None)
    if text is None:
        raise BadRecord("an option has no text")
    return text
