"""The verbs that write a study's labels for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from copl_core.features import VERSION
from copl_core.formats.exports import FORMATS, ExportReport, by_name, write_export
from copl_core.formats.selection import TIES, Row, Selection
from copl_core.records import CoplError, Kind, User
from copl_core.study import access, group_names
from copl_core.study.roles import OWNER, TERMINAL, needs
from copl_core.study.session import Session

__all__ = ["FORMATS", "TIES", "ExportReport", "Selection"]


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose labels an export holds, and how people are named in it.

    Args:
        users: names of users; without users and group, everybody.
        group: name or number of a group of the champion.
        pseudonyms: people are "person-17", and what may name them (reasons, fields of imported files, keys of labels)
            is left out; simulated users and language models keep their names.
    """

    users: Sequence[str] = ()
    group: str | None = None
    pseudonyms: bool = False


@dataclass(frozen=True)
class PreparedExport:
    """One file to download: the export, or a zip archive where it is a folder or two files."""

    path: Path
    report: ExportReport
    folder: TemporaryDirectory  # it goes with this object


@needs(TERMINAL)
def export_to(
    session: Session, form: str, path: Path, selection: Selection | None = None, whose: Whose | None = None
) -> ExportReport:
    """Write labels to a file, or for the format "hf" to a new folder.

    Args:
        form: a name of ``FORMATS``.

    Raises:
        CoplError: there is no such format, user or group, or the file cannot be written.
    """
    return _write(session, form, Path(path), selection, whose)


@needs(OWNER)
def prepare(
    session: Session,
    form: str,
    selection: Selection | None = None,
    whose: Whose | None = None,
    *,
    by: int | None = None,
) -> PreparedExport:
    """Write labels to a file of this machine that a page can send.

    Raises:
        CoplError: as ``export_to``.
    """
    folder = TemporaryDirectory(prefix="copl-export-")
    name = f"labels{by_name(form).ending}" + (".gz" if form == "own" else "")
    report = _write(session, form, Path(folder.name) / name, selection, whose)
    first = report.paths[0]
    if len(report.paths) == 1 and first.is_file():
        return PreparedExport(first, report, folder)
    archive = Path(folder.name) / "labels.zip"
    with ZipFile(archive, "w", ZIP_DEFLATED) as target:
        for path in report.paths:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                target.write(file, file.relative_to(folder.name))
    return PreparedExport(archive, report, folder)


@needs(OWNER)
def prepared_bytes(session: Session, prepared: PreparedExport, *, by: int | None = None) -> bytes:
    """The file to download; who may have it is looked up once more."""
    return prepared.path.read_bytes()


def _write(session: Session, form: str, path: Path, selection: Selection | None, whose: Whose | None) -> ExportReport:
    whose = whose or Whose()
    rows: Iterable[Row] = session.store.export(session.id, users=_ids(session, whose))
    if whose.pseudonyms:
        rows = pseudonymous(rows, {user.name: pseudonym_of(user) for user in session.store.users(session.id)})
    return write_export(rows, form, path, selection, _embedding(session))


def pseudonymous(rows: Iterable[Row], names: Mapping[str, str]) -> Iterator[Row]:
    """Rows without what names people; ``names`` is user → pseudonym."""
    for row in rows:
        yield row | {"annotator": names[row["annotator"]], "reason": "", "meta": {}, "label_key": None}


def pseudonym_of(user: User) -> str:
    """What a user is called where nobody is named: a number for a person, the name of anything else."""
    return f"person-{user.id}" if user.kind == Kind.HUMAN else user.name


def _embedding(session: Session) -> Callable[[Sequence[Row]], np.ndarray]:
    """Rows of M pairs → (M, P): the mean φ of the two responses to the prompt."""

    def embed(rows: Sequence[Row]) -> np.ndarray:
        texts = [(row["prompt"], row[side]) for side in ("response_a", "response_b") for row in rows]
        both = session.scorer().embed(texts, VERSION)
        return (both[: len(rows)] + both[len(rows) :]) / 2

    return embed


def _ids(session: Session, whose: Whose) -> list[int] | None:
    if whose.users and whose.group is not None:
        raise CoplError("Both users and a group are named; name users, or a group.")
    if whose.group is not None:
        return _members(session, group_names.number_of(session, whose.group))
    if not whose.users:
        return None
    return [access.find_user(session, name).id for name in whose.users]


def _members(session: Session, group: int) -> list[int]:
    """Ids of the people of a group in the champion."""
    snapshot = session.snapshot()
    if snapshot is None:
        raise CoplError("There are no groups before the first snapshot; export everybody's labels, or name users.")
    return snapshot.layout.user_ids[snapshot.layout.group == group].tolist()
