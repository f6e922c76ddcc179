"""What every table needs: the declarative base with its naming convention, times in UTC, foreign keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BindParameter,
    DateTime,
    ForeignKey,
    LargeBinary,
    MetaData,
    Result,
    Row,
    Select,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, mapped_column

# A row, a query and a result with any columns, and a parameter of any type.
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]
AnyResult = Result[*tuple[Any, ...]]
Param = BindParameter[Any]


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite stores it as text without a zone, so the zone is removed and restored here."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone was given ({value}); give one with its zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    # Constraints are named by convention, so that a later migration finds them on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime, dict[str, Any]: JSON, bytes: LargeBinary(32)}


def child_of(table: str, **options: Any) -> Any:
    return mapped_column(ForeignKey(f"{table}.id"), **options)
