"""Records of Argilla, versions 1 and 2: fields, and the responses of users to questions.

A ranking of the answers, or a choice of one of them, is taken.  Responses to other questions, such as ratings and
texts, are kept as ``meta`` and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from copl_core.formats.choices import Verdict, plain, unwrapped
from copl_core.formats.containers import Record
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, best_of, pairs, texts_to_compare
from copl_core.formats.reading import Reading
from copl_core.formats.values import absent, annotator_name, brief, missing, number
from copl_core.records import ImportRow

_RATINGS, _STARS = "ratings of the answers", 4.0  # from 1 to 5 by default
_DONE = (None, "submitted", "completed")  # states of a response that count; discarded ones and drafts do not


class _Given(NamedTuple):
    """One response of one user to one question."""

    user: str
    question: str
    value: Any
    status: str | None = None


_Comparison = tuple[_Given, dict[str, float], Verdict | None]


class Argilla(Format):
    name = "argilla"
    title = "A file of Argilla records"
    needs = "fields with a prompt and two or more answers, and responses that rank them or choose one"
    choice_is_a_field = False

    def recognise(self, sample: Sample) -> bool:
        if sample.has("fields", "responses"):
            return sample.any("fields", dict)
        return any(name.endswith(".responses") for name in sample.fields)

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = self.texts(record.fields)
        prompt, answers = texts_to_compare(fields)
        meta = reading.rest(record.fields, {"fields", "vectors", prompt, *answers, *self.questions(record.fields)})
        compared, others = _sorted_out(reading, self.responses(record.fields), answers)
        for one in others:
            reading.ignored[one.question] += 1
            meta.setdefault("responses", {}).setdefault(one.question, {})[one.user] = one.value
            if one.question in reading.choice_fields:
                why = f"an annotation: {one.question} is {brief(one.value)}, which names none of the answers"
                reading.left_out.append((record.number, why))
        reading.without_choice += bool(others) and not compared
        questions = {given.question for given, _, _ in compared}
        nothing: list[tuple[_Given | None, dict[str, float], Verdict | None]] = [(None, {}, None)]
        for given, scores, verdict in compared or nothing:
            more = {"question": given.question} if given and len(questions) > 1 else {}
            rated = Rated(
                prompt_text(fields[prompt]),
                [Answer(response_text(name, fields[name]), scores.get(name)) for name in answers],
                given and given.user,
                scale=_STARS if given and given.question == _RATINGS else 0,
                context=[record.fields.get("id", record.fields.get("external_id")), *more.values()],
                meta={**meta, **more},
                ties=verdict is None,
                verdict=verdict,
            )
            yield from pairs(record, reading, rated)

    def texts(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a record by name."""
        found = fields.get("fields")
        if isinstance(found, dict):
            return {name: value for name, value in found.items() if value is not None}
        return {name: value for name, value in fields.items() if "." not in name and not missing(value)}

    def questions(self, fields: Mapping[str, Any]) -> set[str]:
        """The columns of a record that hold responses."""
        return {"responses", *(name for name in fields if ".responses" in name)}

    def responses(self, fields: Mapping[str, Any]) -> Iterator[_Given]:
        """Every response, whether it counts or not."""
        found = fields.get("responses")
        if isinstance(found, dict):  # version 2
            for question, given in found.items():
                yield from _counting(question, given)
        elif isinstance(found, list):  # version 1
            for one in found:
                values = one.get("values") if isinstance(one, dict) else None
                for question, value in (values or {}).items():
                    inner = value["value"] if isinstance(value, dict) and "value" in value else value
                    yield from _counting(question, [{**one, "value": inner}])
        else:
            yield from _of_columns(fields)


class ArgillaV1(Argilla):
    """The columns of version 1 in a data set: each question holds the responses of its users."""

    name = "argilla-1"
    title = "A data set of Argilla 1"
    needs = "columns for the prompt and the answers, and a question with user_id and value of each response"

    def recognise(self, sample: Sample) -> bool:
        return any(self.questions(record) for record in sample.records)

    def texts(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value for name, value in fields.items() if isinstance(value, str) and value}

    def questions(self, fields: Mapping[str, Any]) -> set[str]:
        return {name for name, value in fields.items() if _responses_of(value)}

    def responses(self, fields: Mapping[str, Any]) -> Iterator[_Given]:
        for question, value in fields.items():
            yield from _counting(question, _responses_of(value))


def _responses_of(value: Any) -> list[dict[str, Any]]:
    """The responses in a cell: a list of objects, or an object of lists; empty for anything else."""
    if isinstance(value, dict) and {"user_id", "value"} <= value.keys() and isinstance(value["value"], list):
        return [dict(zip(value, one, strict=False)) for one in zip(*value.values(), strict=False)]
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return value if {"user_id", "value"} <= value[0].keys() else []
    return []


def _counting(question: str, given: Any) -> Iterator[_Given]:
    for one in given or ():
        if isinstance(one, dict):
            yield _Given(annotator_name(one.get("user_id")) or "", question, one.get("value"), one.get("status"))


def _of_columns(fields: Mapping[str, Any]) -> Iterator[_Given]:
    """Those of version 2 as columns of a data set: ``QUESTION.responses`` and ``QUESTION.responses.users``."""
    for name, values in fields.items():
        if name.endswith(".responses") and isinstance(values, list):
            users, states = (fields.get(f"{name}.{what}") or [None] * len(values) for what in ("users", "status"))
            rows = zip(users, states, values, strict=False)
            given = [{"user_id": user, "status": state, "value": value} for user, state, value in rows]
            yield from _counting(name.removesuffix(".responses"), given)


def _sorted_out(
    reading: Reading, responses: Iterable[_Given], answers: list[str]
) -> tuple[list[_Comparison], list[_Given]]:
    """(responses that compare the answers, all others); ratings of every answer by one user compare them, too."""
    compared: list[_Comparison] = []
    others: list[_Given] = []
    ratings: dict[str, dict[str, float]] = {}
    for one in responses:
        if one.status not in _DONE:
            reading.ignored[f"{one.status} responses"] += 1
        elif missing(one.value):
            continue
        elif found := _compared(reading, one.value, answers):
            reading.choice_fields.add(one.question)
            compared.append((one, *found))
        elif (name := _rated_answer(one.question, answers)) and (rating := number(one.value)) is not None:
            ratings.setdefault(one.user, {})[name] = rating
        else:
            others.append(one)
    for user, scores in ratings.items():
        rated = _Given(user, _RATINGS, scores)
        if len(scores) == len(answers):
            compared.append((rated, scores, None))
        else:
            others.append(rated)
    return compared, others


def _rated_answer(question: str, answers: list[str]) -> str | None:
    """The answer that a question is about: its name holds that of the answer, or ends with the same number."""
    number_of = re.search(r"\d+$", question)
    for name in answers:
        at = re.search(r"\d+$", name)
        if plain(name) in plain(question) or (number_of and at and number_of[0] == at[0]):
            return name
    return None


def _compared(reading: Reading, value: Any, answers: list[str]) -> tuple[dict[str, float], Verdict | None] | None:
    """(score by answer, the higher the better; or the verdict on two answers); None: a value compares no answers."""
    by_plain = {plain(name): name for name in answers}
    places = _places(value)
    if len(places) > 1 and all(plain(name) in by_plain for name in places):
        return {by_plain[plain(name)]: -place for name, place in places.items()}, None
    if isinstance(unwrapped(value), (int, float)) and not reading.coded(value):
        return None  # a rating: a choice is a text, whatever it says
    if len(answers) > 2:
        best = best_of(value, answers)
        return None if best is None else ({name: float(name == best) for name in answers}, Verdict("a"))
    verdict = reading.verdict(value, a={plain(answers[0])}, b={plain(answers[1])})
    return None if verdict is None else ({}, verdict)


def _places(value: Any) -> dict[str, float]:
    """Name → place of a ranking: names from the best on, or names with ranks, in which ties are equal ranks."""
    if isinstance(value, dict) and isinstance(value.get("rank"), list):
        names = value.get("value", value.get("text"))
        return dict(zip(names, map(float, value["rank"]), strict=False)) if isinstance(names, list) else {}
    if not isinstance(value, list) or not value:
        return {}
    if all(isinstance(one, dict) and "value" in one for one in value):
        return {
            str(one["value"]): float(at if absent(one.get("rank")) else one["rank"]) for at, one in enumerate(value)
        }
    return {one: float(at) for at, one in enumerate(value)} if all(isinstance(one, str) for one in value) else {}
