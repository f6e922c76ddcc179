"""Output of Potato: tables with a column ``SCHEME:::LABEL`` per label, or JSON lines with ``label_annotations``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from copl_core.formats.choices import Verdict
from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.fields import columns
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, pairs, texts_to_compare
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, as_list, missing, who
from copl_core.records import ImportRow

_LISTS = ("responses", "answers", "completions", "options", "texts", "text", "displayed_text")
_OFF = ("", "0", "false", "no", "off")
_OF_TOOL = ("span_annotations", "behavioral_data", "link_annotations")


class Potato(Format):
    name = "potato"
    title = "An output file of Potato"
    needs = "a prompt, two answers (or a list of them), and a scheme whose label names one"

    def recognise(self, sample: Sample) -> bool:
        return any(":::" in name for name in sample.fields) or sample.has("label_annotations")

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = {name: value for name, value in record.fields.items() if ":::" not in name}
        inner = fields.get("data") if isinstance(fields.get("data"), dict) else {}
        fields = {**(inner or {}), **fields}
        prompt, answers, read = _texts(fields)
        schemes = _schemes(record.fields)
        names = {scheme: labels for scheme, labels in schemes.items() if labels}
        found = {name: verdict for name, labels in names.items() if (verdict := _verdict(reading, labels))}
        others = {name: labels for name, labels in names.items() if name not in found}
        if len({verdict.choice for verdict in found.values()}) > 1:
            raise BadRecord(f"the schemes {' and '.join(found)} choose different answers")
        annotator, by = who(fields)
        reading.ignored.update(others.keys())
        known = {*read, *by, "label_annotations", "data", *_OF_TOOL, "instance_id", "id"}
        ids = {name: fields[name] for name in ("instance_id", "id") if not missing(fields.get(name))}
        meta = {**ids, **reading.rest(fields, known), **others}
        if annotator and not found:
            reading.without_choice += 1
        context = [fields.get("instance_id", fields.get("id")), fields.get("time")]
        texts = [Answer(text, None) for text in answers]
        verdict = next(iter(found.values()), None)
        yield from pairs(record, reading, Rated(prompt, texts, annotator, 0, context, meta, verdict=verdict))


def _texts(fields: Mapping[str, Any]) -> tuple[str, list[str], set[str]]:
    """(prompt, the two answers, the fields that hold them)."""
    for name in _LISTS:
        value = fields.get(name)
        found = as_list(value) if isinstance(value, (list, str)) and str(value)[:1] == "[" else []
        if len(found) == 2:
            prompt = next((one for one in columns(tuple(fields)).of("prompt") if one != name), None)
            if prompt is None:
                raise BadRecord(f"none of the fields {', '.join(fields)} is a prompt")
            return prompt_text(fields[prompt]), [response_text(name, one) for one in found], {name, prompt}
    prompt, answers = texts_to_compare(fields)
    if len(answers) != 2:
        raise BadRecord(f"there are {len(answers)} answers, and a scheme chooses between two")
    return prompt_text(fields[prompt]), [response_text(name, fields[name]) for name in answers], {prompt, *answers}


def _schemes(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """The labels that are set, by scheme."""
    found: dict[str, list[str]] = {}
    for name, value in fields.items():
        scheme, sign, label = name.partition(":::")
        if sign and not absent(value) and str(value).strip().lower() not in _OFF:
            found.setdefault(scheme, []).append(label if label and not _is_text(label) else str(value))
    for scheme, labels in (fields.get("label_annotations") or {}).items():
        if isinstance(labels, dict):
            chosen = [label for label, value in labels.items() if str(value).strip().lower() not in _OFF]
            found.setdefault(scheme, []).extend(chosen)
    return found


def _is_text(label: str) -> bool:
    """Whether a column holds words and no label."""
    return label in ("text_box", "free_response", "text")


def _verdict(reading: Reading, labels: list[str]) -> Verdict | None:
    return reading.verdict(labels[0]) if len(labels) == 1 else None
