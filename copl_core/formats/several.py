"""Rows that hold more than one label, or two answers in one field: they become rows of one label each."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from copl_core.formats.fields import LISTS, Columns, columns, plain_name
from copl_core.formats.reading import Reading
from copl_core.formats.values import present

_VOTES = ("votes", "labels", "annotations", "choices", "preferences", "judgments")


def has_texts(found: Columns) -> bool:
    """Whether a record has a field for each of two answers."""
    return bool(found.of("response_a") and found.of("response_b"))


def two_listed(fields: Mapping[str, Any]) -> str | None:
    """The field that lists two answers, of a record whose answers have no fields of their own."""
    found = columns(tuple(fields))
    named = next((name for name, one in fields.items() if isinstance(one, list) and plain_name(name) in LISTS), None)
    chosen = found.of("choice") or found.guesses
    return named if named and len(fields[named]) == 2 and chosen and not has_texts(found) else None


def with_sides(fields: dict[str, Any]) -> dict[str, Any]:
    """A record with its two listed answers, and their models, in fields of their own."""
    if (name := two_listed(fields)) is None:
        return fields
    rest = {other: value for other, value in fields.items() if other != name}
    for side, answer in zip("ab", fields[name], strict=True):
        rest[f"response_{side}"] = answer
        if isinstance(answer, dict) and (model := present(answer, ("model", "policy", "model_name"))):
            rest[f"model_{side}"] = answer[model]
    return rest


def labels_within(fields: dict[str, Any], reading: Reading) -> list[dict[str, Any]]:
    """A record for each label of one that lists the labels of several people; empty for any other record.

    They are objects with an annotator and a choice, or an object of choices by annotator.
    """
    found = columns(tuple(fields))
    if any(not isinstance(fields[name], (list, dict, NoneType)) for name in (*found.of("choice"), *found.guesses)):
        return []
    for name, value in fields.items():
        if not isinstance(value, (list, dict)):
            continue
        labels = _listed_labels(value) or (_named_labels(value, reading) if plain_name(name) in _VOTES else [])
        if labels:
            rest = {other: one for other, one in fields.items() if other != name}
            return [{**rest, **label} for label in labels]
    return []


def _listed_labels(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        return []
    found = [columns(tuple(one)) for one in value]
    return value if all(one.of("annotator") and (one.of("choice") or one.guesses) for one in found) else []


def _named_labels(value: Any, reading: Reading) -> list[dict[str, Any]]:
    if not isinstance(value, dict) or not value:
        return []
    if not all(isinstance(one, str) and (reading.coded(one) or reading.understands(one)) for one in value.values()):
        return []
    return [{"annotator": name, "choice": one} for name, one in value.items()]
