"""The verb that writes a study's labels for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from copl_core.formats.exports import ExportReport, write_export
from copl_core.formats.selection import Selection
from copl_core.records import CoplError
from copl_core.study import group_names
from copl_core.study.roles import TERMINAL, needs
from copl_core.study.session import Session

__all__ = ["ExportReport", "Selection", "export_to"]


@needs(TERMINAL)
def export_to(
    session: Session,
    form: str,
    path: Path,
    selection: Selection | None = None,
    *,
    users: Sequence[str] = (),
    group: str | None = None,
) -> ExportReport:
    """Write labels to a file, or for the format "hf" to a new folder.

    Args:
        form: a name of ``FORMATS``.
        users: names of the people whose labels are written; without users and group, everybody's.
        group: name or number of a group of the champion.

    Raises:
        CoplError: there is no such format, user or group, or the file cannot be written.
    """
    rows = session.store.export(session.id, users=_whose(session, users, group))
    return write_export(rows, form, Path(path), selection)


def _whose(session: Session, users: Sequence[str], group: str | None) -> list[int] | None:
    if users and group is not None:
        raise CoplError("Both users and a group are named; name users, or a group.")
    if group is not None:
        return _members(session, group_names.number_of(session, group))
    if not users:
        return None
    known = {user.name: user.id for user in session.store.users(session.id)}
    missing = [name for name in users if name not in known]
    if missing:
        raise CoplError(
            f"There is no user {missing[0]!r} in study {session.record.name!r}; use a name of the People page."
        )
    return [known[name] for name in users]


def _members(session: Session, group: int) -> list[int]:
    """Ids of the people of a group in the champion."""
    snapshot = session.snapshot()
    if snapshot is None:
        raise CoplError("There are no groups before the first snapshot; export everybody's labels, or name users.")
    return snapshot.layout.user_ids[snapshot.layout.group == group].tolist()
