"""Which names of a study may be taken for another name, by index: a study may have a million people, and the name of
each newcomer is compared.

A name of letters A to Z alone differs from another such name that looks the same in case at most, and the database has
an index of its names in lower case.  Names with other letters have an index of their own, and are compared here.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, select, text

from copl_core.names import look
from db.models import IS_BEYOND_ASCII, UserRow


def names_like(connection: Connection, study_id: int, folded: Collection[str]) -> list[str]:
    """The names of a study's users that are in lower case one of ``folded``, and all that hold a letter beyond ASCII.

    Args:
        folded: a name as ``str.casefold`` gives it, and what it looks like (``copl_core.names``).
    """
    beyond = text(f"({IS_BEYOND_ASCII[connection.dialect.name]})")
    found = list[str]()
    for condition in (func.lower(UserRow.name).in_(sorted(folded)), beyond):
        # With the kind: SQLite would read the names of the whole study in the index that holds nothing but names.
        query = select(UserRow.name, UserRow.kind).where(UserRow.study_id == study_id, condition)
        found += connection.execute(query).scalars()
    return found


def in_use(connection: Connection, study_id: int, name: str) -> str | None:
    """The name of a user of the study that is this one in any case, or else one that looks like it."""
    folded, shape = name.casefold(), look(name)
    found = [one for one in names_like(connection, study_id, {folded, shape}) if look(one) == shape]
    return min(found, key=lambda one: one.casefold() != folded, default=None)
