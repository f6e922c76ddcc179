"""A part of several pages: the people among whom one chooses, found by name where a study has too many for a list."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from copl_core.records import User
from copl_core.study import access
from pages.common import current


def find_people(key: str, title: str = "Find people: part of a name", chosen: Iterable[int | None] = ()) -> list[User]:
    """Everybody; in a large study a field for a part of a name, and the people whom it finds.

    Args:
        chosen: ids of people who are among them in any case.
    """
    session, _ = current()
    few = access.few_users(session)
    if few is not None:
        return few
    part = st.text_input(title, key=key, help="The study has too many people for one list.")
    found = {user.id: user for user in access.find_users(session, part)} | access.users_of(session, chosen)
    return list(found.values())
