"""Exports of Label Studio: JSON, JSON-MIN and CSV.

A pairwise result, a choice, a ranking, or a rating of each answer is taken; the left of a pairwise template stands on
the left.  A cancelled annotation is a skip.  Other results are kept as ``meta`` and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from copl_core.formats.choices import Verdict, is_number, plain, unwrapped
from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.fields import columns
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, best_of, pairs, texts_to_compare
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, absent, annotator_name, as_time, brief, missing, number, who
from copl_core.records import LARGEST, ImportRow

_MIN = ("annotation_id", "lead_time")  # of JSON-MIN and CSV
_OF_TASKS = (
    "id", "data", "annotations", "meta", "project", "created_at", "updated_at", "inner_id", "total_annotations",
    "cancelled_annotations", "total_predictions", "comment_count", "unresolved_comment_count", "updated_by",
    "comment_authors", "last_comment_updated_at", "drafts", "file_upload", "predictions",
)  # fmt: skip
_INNER = ("selected", "choices", "rating", "text", "ranker", "number", "taxonomy", "labels")


class LabelStudio(Format):
    name = "label-studio"
    title = "An export of Label Studio"
    needs = "a prompt and two answers in data, and annotations that choose one"
    learns = True

    def recognise(self, sample: Sample) -> bool:
        if sample.has("data") and (sample.has("annotations") or sample.has("completions")):
            return sample.any("data", dict)
        return sample.has(*_MIN)

    def learn(self, records: Iterable[Record], reading: Reading) -> None:
        """Some exports name an annotator by number here and by e-mail there: who has which number."""
        for record in records:
            for one in record.fields.get("annotations") or record.fields.get("completions") or ():
                who = one.get("completed_by") if isinstance(one, dict) else None
                if isinstance(who, dict) and not absent(who.get("id")) and (name := annotator_name(who)):
                    reading.names.setdefault(plain(who["id"]), name)

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        if not isinstance(record.fields.get("data"), dict):
            yield from self._flat(record, reading)
            return
        fields = record.fields
        data = {name: value for name, value in fields["data"].items() if value is not None}
        prompt, answers, items = _texts(data)
        extra = {name: data[name] for name in data if name not in (prompt, *answers)}
        meta = {"id": fields.get("id")} | extra
        reading.ignored.update(name for name in extra if not missing(extra[name]) and name != items)
        meta.pop(items, None)
        reading.ignored.update(name for name in ("predictions", "drafts") if not missing(fields.get(name)))
        given = fields.get("meta")
        meta |= reading.rest(fields, _OF_TASKS) | (given if isinstance(given, dict) else {})
        task = _Task(record, reading, data, prompt, answers, items, meta)
        done = fields.get("annotations") or fields.get("completions") or ()
        for rated in list(task.all_of(done)) or [task.rated({}, None, {})]:
            yield from pairs(record, reading, rated)

    def _flat(self, record: Record, reading: Reading) -> Iterator[ImportRow]:
        """A row of JSON-MIN or CSV: data, results and annotation side by side."""
        fields = record.fields
        prompt, answers, items = _texts({name: value for name, value in fields.items() if value is not None})
        annotator, by = who(fields)
        known = {prompt, *answers, items, *by, "created_at", "lead_time"}
        name, verdict = _choice_of(reading, fields, answers, known)
        meta = reading.rest(fields, {*known, name, "id", "annotation_id", "updated_at"})
        ids = {one: fields[one] for one in ("id", "annotation_id") if not missing(fields.get(one))}
        task = _Task(record, reading, fields, prompt, answers, items, {**ids, **meta})
        if verdict is None and annotator:
            reading.without_choice += 1
        how = {"created_at": fields.get("created_at"), "lead_time": fields.get("lead_time"), "id": fields.get("id")}
        yield from task.two(annotator, verdict, _is_side(fields.get(name)), how)


class _Task:
    """A task of Label Studio while its annotations are read."""

    def __init__(
        self,
        record: Record,
        reading: Reading,
        data: Mapping[str, Any],
        prompt: str,
        answers: list[str],
        items: str,
        meta: Mapping[str, Any],
    ) -> None:
        self.record, self.reading, self.meta = record, reading, meta
        self.prompt, self.names = prompt_text(data[prompt]), answers
        if items:
            self.found = [(str(one.get("id", at)), _item_text(one)) for at, one in enumerate(data[items])]
        else:
            self.found = [(name, response_text(name, data[name])) for name in answers]

    def rated(
        self,
        scores: Mapping[str, float],
        verdict: Verdict | None,
        how: Mapping[str, Any],
        *,
        ties: bool = True,
        **more: Any,
    ) -> Rated:
        lead = number(how.get("lead_time"))
        milliseconds = None if lead is None or lead < 0 else min(int(lead * 1000), LARGEST)
        more |= {"created_at": as_time(how.get("created_at")), "milliseconds": milliseconds}
        return Rated(
            self.prompt,
            [Answer(text, scores.get(name)) for name, text in self.found],
            self._annotator(how),
            4 if how.get("rating") else 0,
            context=[self.record.fields.get("id"), how.get("id")],
            meta={**self.meta, **how.get("meta", {})},
            more={name: value for name, value in more.items() if value is not None},
            ties=ties,
            verdict=verdict,
        )

    def _annotator(self, how: Mapping[str, Any]) -> str | None:
        """The name of an annotator; a number gets the name that another annotation of the file gives with it."""
        value = how.get("completed_by")
        name = annotator_name(_first_word(how.get("created_username")) if absent(value) else value)
        return self.reading.names.get(name, name) if name else None

    def two(
        self, annotator: str | None, verdict: Verdict | None, side: bool, how: Mapping[str, Any]
    ) -> Iterator[ImportRow]:
        rated = self.rated({}, verdict, {**how, "completed_by": annotator}, left="a" if side else None)
        yield from pairs(self.record, self.reading, rated)

    def all_of(self, annotations: Iterable[Any]) -> Iterator[Rated]:
        """What all annotations say; one that cannot be taken does not cost the others."""
        for one in annotations:
            try:
                yield from self.annotation(one) if isinstance(one, dict) else ()
            except BadRecord as bad:
                self.reading.left_out.append((self.record.number, f"an annotation: {bad}"))

    def annotation(self, one: Mapping[str, Any]) -> Iterator[Rated]:
        """What an annotation says about the answers; a cancelled one says nothing."""
        if one.get("was_cancelled") or one.get("skipped"):
            self.reading.ignored["was_cancelled"] += 1
            return
        results = [result for result in one.get("result") or () if isinstance(result, dict)]
        ratings, rest, taken = {}, {}, []
        for result in results:
            value, name = result.get("value") or {}, str(result.get("from_name"))
            scores, verdict, side = self._result(result)
            if scores or verdict:
                self.reading.choice_fields.add(name)
                taken.append((scores, verdict, side))
            elif name in self.reading.choice_fields:
                raise BadRecord(f"{name} is {brief(_inner(value))}, which names none of the answers")
            elif (answer := self._answer(result.get("to_name"))) and number(value.get("rating")) is not None:
                ratings[answer] = number(value.get("rating")) or 0.0
            else:
                rest[name] = _inner(value)
        self.reading.ignored.update(rest.keys())
        how = {**one, "meta": rest}
        if not taken and len(ratings) > 1:
            yield self.rated(ratings, None, {**how, "rating": True})
        elif ratings and not taken:
            raise BadRecord("only one of the answers is rated")
        self.reading.without_choice += bool(results) and not taken and len(ratings) < 2
        for scores, verdict, side in taken:
            yield self.rated(scores, verdict, how, ties=len(set(scores.values())) != 2, left="a" if side else None)

    def _result(self, result: Mapping[str, Any]) -> tuple[dict[str, float], Verdict | None, bool]:
        """(score by answer, verdict on two answers, whether left and right name sides on screen)."""
        value = result.get("value") or {}
        order = value.get("ranker")
        if isinstance(order, dict):
            order = next((one for one in order.values() if isinstance(one, list)), None)
        if isinstance(order, list):
            return {str(name): -float(at) for at, name in enumerate(order)}, None, False
        chosen = value.get("selected", value.get("choices"))
        if missing(chosen):
            return {}, None, False
        if len(self.found) > 2:
            best = best_of(chosen, [name for name, _ in self.found])
            return ({name: float(name == best) for name, _ in self.found} if best else {}), None, False
        names = [{plain(name)} for name, _ in self.found]
        verdict = self.reading.verdict(chosen, a=names[0], b=names[1])
        if verdict is None and result.get("type") == "pairwise":
            raise BadRecord(f"the pairwise result is {brief(chosen)}; it must be left or right")
        return {}, verdict, _is_side(chosen)

    def _answer(self, name: Any) -> str | None:
        return next((one for one, _ in self.found if plain(one) == plain(str(name))), None)


def _texts(data: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """(field of the prompt, fields of the answers, field of a list of answers to rank)."""
    for name, value in data.items():
        if isinstance(value, list) and len(value) > 1 and all(isinstance(one, dict) and "id" in one for one in value):
            prompt = next((field for field in columns(tuple(data)).of("prompt") if field != name), None)
            if prompt is None:
                raise BadRecord(f"none of the fields {', '.join(data)} is a prompt")
            return prompt, [], name
    prompt, answers = texts_to_compare(data)
    return prompt, answers, ""


def _item_text(item: Mapping[str, Any]) -> str:
    names = ("text", "body", "html", "title", "value")
    text = next((item[name] for name in names if isinstance(item.get(name), str)), None)
    if text is None:
        raise BadRecord("an item to rank has no text")
    return text


def _choice_of(
    reading: Reading, fields: Mapping[str, Any], answers: list[str], known: set[str]
) -> tuple[str, Verdict | None]:
    """(the field that holds the choice, what it says): one with a usual name, else one whose word is a choice."""
    if len(answers) != 2:
        return "", None
    found = columns(tuple(fields))
    usual = [*found.of("choice"), *found.guesses]
    for name in [*usual, *(one for one in fields if one not in usual and one not in known)]:
        value = unwrapped(fields.get(name))
        if absent(value) or (is_number(plain(value)) and name not in usual and not reading.coded(value)):
            continue
        verdict = reading.verdict(value, a={plain(answers[0])}, b={plain(answers[1])})
        if verdict:
            return name, verdict
        if name in usual:
            raise BadRecord(f"{name} is {brief(value)}, which names neither answer")
    return "", None


def _inner(value: Mapping[str, Any]) -> Any:
    """What a result says, without the name of its kind."""
    return next((value[inner] for inner in _INNER if inner in value), value)


def _first_word(value: Any) -> Any:
    """The e-mail in ``ann@example.org, 1``, as old exports name an annotator."""
    return value.split(",")[0].strip() if isinstance(value, str) else None


def _is_side(value: Any) -> bool:
    return plain(unwrapped(value)) in ("left", "right")
