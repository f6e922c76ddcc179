"""Plain ratings and rankings: one answer per row with its rating, or all answers of a prompt in one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.conversations import as_messages, prompt_text, response_text
from copl_core.formats.fields import LISTS, columns, plain_name
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, by_answer, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import (
    BadRecord,
    absent,
    annotator_name,
    as_list,
    checked,
    number,
    present,
    source_name,
    who,
)
from copl_core.records import ImportRow

_ONE = ("response", "completion", "answer", "output", "generation", "reply", "model_response", "text")
_RATINGS = ("rating", "score", "stars", "grade", "points", "overall", "overall_rating", "overall_score", "reward")
_MANY_RATINGS = ("ratings", "scores", "rewards", "grades", "points", "rating", "score")
_MANY_RANKS = ("ranks", "rank")
_ORDERS = ("ranking", "order", "ranked")
_MODELS = ("model", "models", "model_name", "model_names", "generation_models", "source")
_TEXTS = ("text", "response", "answer", "completion", "output", "content", "body", "html")


class Ratings(Format):
    """One answer per row.  Answers to the same prompt are compared if the same annotator rated them."""

    name = "ratings"
    title = "A file of rated answers"
    needs = "prompt, response, rating and annotator, with several answers to a prompt"

    def recognise(self, sample: Sample) -> bool:
        fields = sample.fields
        has_rating, has_text = _named(fields, _RATINGS), _named(fields, _ONE)
        return bool(has_rating and has_text and columns(tuple(fields)).of("prompt")) and not _named(fields, LISTS)

    def read(self, records: Iterable[Record], reading: Reading) -> Iterator[ImportRow]:
        together: dict[tuple[str, str | None], list[tuple[Record, Answer, dict[str, Any]]]] = {}
        for record in records:
            try:
                key, answer, rest = self._one(record, reading)
            except BadRecord as bad:
                reading.left_out.append((record.number, str(bad)))
                continue
            together.setdefault(key, []).append((record, answer, rest))
        scores = [answer.score for rows in together.values() for _, answer, _ in rows if answer.score is not None]
        scale = max(scores) - min(scores) if scores else 0
        for (prompt, annotator), rows in together.items():
            record = rows[0][0]
            meta = by_answer([rest for _, _, rest in rows])
            rated = Rated(prompt, [answer for _, answer, _ in rows], annotator, scale, meta=meta)
            try:
                yield from pairs(record, reading, rated)
            except BadRecord as bad:
                reading.left_out.append((record.number, str(bad)))

    def _one(self, record: Record, reading: Reading) -> tuple[tuple[str, str | None], Answer, dict[str, Any]]:
        fields = record.fields
        found = columns(tuple(fields))
        prompt = present(fields, found.of("prompt")) or "prompt"
        text, rating, model = (_named(fields, names) for names in (_ONE, _RATINGS, _MODELS))
        annotator, by = who(fields)
        answer = Answer(
            response_text(text or "response", fields.get(text)),
            number(fields.get(rating)),
            source_name("model", fields.get(model)),
        )
        rest = reading.rest(fields, {prompt, text, rating, model, *by})
        system = next((fields[name] for name in found.of("system")), None)
        return (prompt_text(fields.get(prompt), system=system), annotator), answer, rest


class Lists(Format):
    """All answers of a prompt in one row, with a rating or a rank for each, or with their order from best to worst."""

    name = "lists"
    title = "A file of ranked answers"
    needs = "prompt, responses (a list), ratings, ranks (1 is the best) or ranking (from the best on), and annotator"

    def recognise(self, sample: Sample) -> bool:
        many = _named(sample.fields, LISTS)
        if not many or not columns(tuple(sample.fields)).of("prompt"):
            return False
        values = [as_list(value) for value in sample.values(many)]
        rated = _named(sample.fields, (*_MANY_RATINGS, *_MANY_RANKS, *_ORDERS))
        inner = [one for value in values for one in value if isinstance(one, dict)]
        return bool(values) and (bool(rated) or any(_named(one, (*_RATINGS, *_MANY_RANKS)) for one in inner))

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        fields = record.fields
        found = columns(tuple(fields))
        prompt = present(fields, found.of("prompt")) or "prompt"
        many = _named(fields, LISTS)
        values = as_list(fields.get(many, []))
        ratings = _named(fields, (*_MANY_RATINGS, *_MANY_RANKS, *_ORDERS))
        models = as_list(fields[name]) if (name := _named(fields, _MODELS)) else []
        scores, is_rating = self._scores(fields, ratings, values)
        answers = [
            Answer(_text(value), score, self._model(value, models, i), _id(value))
            for i, (value, score) in enumerate(zip(values, scores, strict=True))
        ]
        annotator, by = who(fields)
        meta = reading.rest(fields, {prompt, many, ratings, name if len(models) == len(values) else "", *by})
        given = [score for score in scores if score is not None]
        scale = max(max(given) - min(given), 4) if is_rating and given else 0
        context = [fields.get(one) for one in ("id", "prompt_id")]
        yield from pairs(
            record, reading, Rated(prompt_text(fields.get(prompt)), answers, annotator, scale, context, meta)
        )

    def _scores(self, fields: Mapping[str, Any], name: str, values: Sequence[Any]) -> tuple[list[float | None], bool]:
        """(a score per answer, of which the higher is better; whether its distances mean something)."""
        if not name:
            return _inner_scores(values)
        given = as_list(fields.get(name))
        if plain_name(name) in _ORDERS:
            return _by_order(name, given, values), False
        if len(given) != len(values):
            raise BadRecord(f"{name} has {len(given)} values and there are {len(values)} answers")
        if plain_name(name) in _MANY_RANKS:
            return [None if (rank := number(one)) is None else -rank for one in given], False
        return [number(one) for one in given], True

    def _model(self, value: Any, models: Sequence[Any], at: int) -> str | None:
        if isinstance(value, dict) and (name := _named(value, _MODELS)):
            return source_name("model", value[name])
        return source_name("model", models[at]) if len(models) > at and isinstance(models[at], str) else None


def _inner_scores(values: Sequence[Any]) -> tuple[list[float | None], bool]:
    """Scores that stand beside their texts."""
    rows = [value if isinstance(value, dict) else {} for value in values]
    if any(_named(row, _MANY_RANKS) for row in rows):
        ranks = [number(row.get(_named(row, _MANY_RANKS))) for row in rows]
        return [None if rank is None else -rank for rank in ranks], False
    return [number(row.get(_named(row, _RATINGS))) for row in rows], True


def _by_order(name: str, order: Sequence[Any], values: Sequence[Any]) -> list[float | None]:
    """Scores from an order of texts or ids, the best first."""
    if order and all(isinstance(one, (int, float)) for one in order):
        raise BadRecord(f"{name} holds numbers; call them ranks (a rank per answer), or write the texts in their order")
    place = {str(one).strip(): -float(at) for at, one in enumerate(order)}
    keys = [(_text(value).strip(), _id(value)) for value in values]
    unknown = set(place) - {key for both in keys for key in both if key}
    if unknown:
        raise BadRecord(f"{name} names {sorted(unknown)[0][:40]}, which is none of the answers")
    return [place.get(text, place.get(key or text)) for text, key in keys]


def _text(value: Any) -> str:
    if isinstance(value, dict) and as_messages(value) is None:
        name = next((name for name in _TEXTS if isinstance(value.get(name), str)), None)
        if name is None:
            raise BadRecord("an answer has no text")
        return checked(name, value[name])
    return response_text("an answer", value)


def _id(value: Any) -> str | None:
    found = value.get("id") if isinstance(value, dict) else None
    return None if absent(found) else annotator_name(found)


def _named(fields: Iterable[str], names: Sequence[str]) -> str:
    """The field that has the first of these names; empty without one."""
    plain = {plain_name(field): field for field in fields}
    return next((plain[plain_name(name)] for name in names if plain_name(name) in plain), "")
