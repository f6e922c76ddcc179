"""What a name looks like is the same in SQL and in the core."""

from __future__ import annotations

from itertools import product

from sqlalchemy import text

from copl_core.names import look
from db.engine import reading
from db.models import LOOK
from db.store import SqlStore


def test_a_name_of_ascii_looks_the_same_to_the_database(store: SqlStore):
    names = ["".join(pair) for pair in product("01lLiIoOaZ| -'", repeat=2)]
    query = text(f"select {LOOK} from (select cast(:name as varchar) as name) as one")
    with reading(store.engine) as connection:
        assert [connection.execute(query, {"name": name}).scalar() for name in names] == [look(name) for name in names]
