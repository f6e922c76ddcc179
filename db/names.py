"""Which names of a study may be taken for another name, by index: a study may have a million people, and the name of
each newcomer is compared.

The database has an index of what names of ASCII look like.  Names with other letters have an index of their own, and
are compared here.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, text

from copl_core.names import alike, look
from db.models import IS_BEYOND_ASCII, LOOK, UserRow


def names_like(connection: Connection, study_id: int, shape: str) -> list[str]:
    """The names of a study's users that look like ``shape`` (``copl_core.names.look``), and all that hold a letter
    beyond ASCII.
    """
    beyond = text(f"({IS_BEYOND_ASCII[connection.dialect.name]})")
    found = list[str]()
    for condition in (text(f"{LOOK} = :shape").bindparams(shape=shape), beyond):
        # With the kind: SQLite would read the names of the whole study in the index that holds nothing but names.
        query = select(UserRow.name, UserRow.kind).where(UserRow.study_id == study_id, condition)
        found += connection.execute(query).scalars()
    return found


def in_use(connection: Connection, study_id: int, name: str) -> str | None:
    """The name of a user of the study that is this one in any case, or else one that can be taken for it."""
    folded, shape = name.casefold(), look(name)
    like = (one for one in names_like(connection, study_id, shape) if look(one) == shape and alike(one, name))
    return min(like, key=lambda one: one.casefold() != folded, default=None)
