"""One statement that gives many rows of a table new numbers, which it takes as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, text

# PostgreSQL locks the rows in the order of their ids, so that two of these do not block each other.
_STATEMENTS = {
    "sqlite": """update "{table}" set "{column}" = {before}given.n from (
            select json_extract(value, '$[0]') as id, json_extract(value, '$[1]') as n from json_each(:given)
        ) as given
        where "{table}".id = given.id""",
    "postgresql": """with given as materialized (
            select (value ->> 0)::integer as id, (value ->> 1)::integer as n
            from json_array_elements(cast(:given as json))
        ), locked as materialized (
            select id from "{table}" where id in (select id from given) order by id for no key update
        )
        update "{table}" set "{column}" = {before}given.n from given join locked using (id)
        where "{table}".id = given.id""",
}


def set_many(connection: Connection, column: Any, numbers: Mapping[int, int]) -> None:
    """Set a column: id of the row → its number."""
    _change(connection, column, numbers, "")


def add_many(connection: Connection, column: Any, numbers: Mapping[int, int]) -> None:
    """Add to a column: id of the row → how much."""
    _change(connection, column, numbers, f'"{_name(column)}" + ')


def _change(connection: Connection, column: Any, numbers: Mapping[int, int], before: str) -> None:
    if numbers:
        table = column.class_.__tablename__
        statement = _statement(connection.dialect.name, table, _name(column), before)
        connection.execute(statement, {"given": json.dumps(sorted(numbers.items()))})


def _name(column: Any) -> str:
    return str(column.property.columns[0].name)


@cache
def _statement(dialect: str, table: str, column: str, before: str) -> TextClause:
    return text(_STATEMENTS[dialect].format(table=table, column=column, before=before))
