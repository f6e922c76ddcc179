"""Output of Potato: tables with a column ``SCHEME:::LABEL`` per label, or JSON lines with ``label_annotations``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from copl_core.formats.choices import Verdict
from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.fields import CHOICES, columns, plain_name
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, best_of, in_order, pairs, texts_to_compare
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, as_list, missing, number, who
from copl_core.records import ImportRow

_LISTS = ("responses", "answers", "completions", "options", "texts", "text", "displayed_text")
_ORDER, _SCALE, _SELECTION = "rank_order", "scale_value", "selection"
_WORDS = ("text_box", "free_response", "text", "justification", _ORDER, _SCALE, _SELECTION)  # labels whose value counts
_OVERALL = frozenset(plain_name(name) for name in ("overall", "choice", *CHOICES))
_Said = tuple[Verdict | None, dict[int, float | None]]
_OFF = ("", "0", "false", "no", "off")
_OF_TOOL = ("span_annotations", "behavioral_data", "link_annotations")


class Potato(Format):
    name = "potato"
    title = "An output file of Potato"
    needs = "a prompt, two or more answers (or a list of them), and a scheme that names one or ranks them"

    def recognise(self, sample: Sample) -> bool:
        return any(":::" in name for name in sample.fields) or sample.has("label_annotations")

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = {name: value for name, value in record.fields.items() if ":::" not in name}
        inner = fields.get("data") if isinstance(fields.get("data"), dict) else {}
        fields = {**(inner or {}), **fields}
        prompt, answers, read = _texts(fields)
        schemes = {name: labels for name, labels in _schemes(record.fields).items() if labels}
        found = {name: what for name, labels in schemes.items() if (what := _reading_of(reading, labels, len(answers)))}
        chief = _chief(found)
        others = {name: labels for name, labels in schemes.items() if name != chief}
        annotator, by = who(fields)
        reading.ignored.update(others.keys())
        known = {*read, *by, "label_annotations", "data", *_OF_TOOL, "instance_id", "id"}
        ids = {name: fields[name] for name in ("instance_id", "id") if not missing(fields.get(name))}
        meta = {**ids, **reading.rest(fields, known), **{name: _labels(one) for name, one in others.items()}}
        if annotator and not found:
            reading.without_choice += 1
        verdict, scores = found.get(chief, (None, {}))
        rated = Rated(
            prompt,
            [Answer(text, scores.get(at)) for at, text in enumerate(answers)],
            annotator,
            context=[fields.get("instance_id", fields.get("id")), fields.get("time")],
            meta=meta,
            ties=_ORDER in schemes.get(chief, {}),
            verdict=verdict,
        )
        yield from pairs(record, reading, rated)


def _chief(found: Mapping[str, _Said]) -> str:
    """The scheme that says which answer is better: the only one, the one that is called so, or one of many that agree.

    Raises:
        BadRecord: several schemes choose different answers, and none is called the overall choice.
    """
    usual = [name for name in found if plain_name(name.rpartition(".")[2]) in _OVERALL]
    if len({str(one) for one in found.values()}) > 1 and len(usual) != 1:
        raise BadRecord(f"the schemes {' and '.join(found)} choose different answers")
    return next(iter([*usual, *found]), "")


def _texts(fields: Mapping[str, Any]) -> tuple[str, list[str], set[str]]:
    """(prompt, the answers, the fields that hold them)."""
    for name in _LISTS:
        value = fields.get(name)
        found = as_list(value) if isinstance(value, (list, str)) and str(value)[:1] == "[" else []
        if len(found) > 1:
            prompt = next((one for one in columns(tuple(fields)).of("prompt") if one != name), None)
            if prompt is None:
                raise BadRecord(f"none of the fields {', '.join(fields)} is a prompt")
            return prompt_text(fields[prompt]), [response_text(name, one) for one in found], {name, prompt}
    prompt, answers = texts_to_compare(fields)
    return prompt_text(fields[prompt]), [response_text(name, fields[name]) for name in answers], {prompt, *answers}


def _schemes(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The labels that are set, with their values, by scheme."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in fields.items():
        scheme, sign, label = name.partition(":::")
        if sign and not absent(value):
            found.setdefault(scheme, {})[label] = value
    for scheme, labels in (fields.get("label_annotations") or {}).items():
        if isinstance(labels, dict):
            found.setdefault(scheme, {}).update(labels)
    named = {scheme: {k: v for k, v in labels.items() if _is_set(k, v)} for scheme, labels in found.items()}
    return dict(_by_dimension(named))


def _is_set(label: str, value: Any) -> bool:
    return label == _SCALE or str(value).strip().lower() not in _OFF


def _by_dimension(schemes: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A scheme with a choice for each of several dimensions is several schemes."""
    for scheme, labels in schemes.items():
        sides = {name: value for name, value in labels.items() if str(value) in ("A", "B", "tie") and value != name}
        if sides and not sides.keys() & {_SELECTION, "best", "worst", ""}:
            yield from ((f"{scheme}.{name}", {_SELECTION: value}) for name, value in sides.items())
            labels = {name: value for name, value in labels.items() if name not in sides}
        yield scheme, labels


def _reading_of(reading: Reading, labels: Mapping[str, Any], n: int) -> _Said | None:
    """(verdict on two answers, or None; scores by position) of the labels of one scheme; None: it compares nothing."""
    letters = [chr(ord("A") + at) for at in range(n)]
    if _ORDER in labels:
        scores = in_order(str(labels[_ORDER]), letters)
    elif "best" in labels or "worst" in labels:
        best, worst = (best_of(labels.get(name), letters) for name in ("best", "worst"))
        scores = {letter: float(letter == best) - float(letter == worst) for letter in letters}
    else:
        scores = {}
    if scores:
        return None, {at: scores.get(letter) for at, letter in enumerate(letters)}
    if _SCALE in labels:
        value = number(labels[_SCALE])
        return None if value is None else (_by_sign(value), {})
    words = _labels(labels)
    if len(words) != 1:
        return None
    if n > 2:
        best = best_of(words[0], letters)
        return (None, {at: float(letter == best) for at, letter in enumerate(letters)}) if best else None
    verdict = reading.verdict(words[0])
    return (verdict, {}) if verdict else None


def _by_sign(value: float) -> Verdict:
    """A slider: the more to the left, the better the first answer."""
    strength = min(max(round(abs(value)), 1), 3)
    return Verdict("tie") if value == 0 else Verdict("a" if value < 0 else "b", strength)


def _labels(labels: Mapping[str, Any]) -> list[str]:
    """The labels of a scheme in words; of fields that hold a word, the word."""
    return [str(value) if not label or label in _WORDS else label for label, value in labels.items()]
