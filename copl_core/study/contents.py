"""The verbs about the contents of a study: its prompts, responses and pairs, their import and export."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

from copl_core.config import Settings
from copl_core.folders import below
from copl_core.formats.exports import with_messages
from copl_core.formats.files import OpenedFile, fields_of, open_file, read_options
from copl_core.formats.values import visible
from copl_core.records import CoplError, ImportReport, ImportRow, Pair, Response, Right, StudyRecord
from copl_core.store import Store
from copl_core.study.access import give_owner
from copl_core.study.roles import MEMBER, OWNER, RESEARCHER, needs
from copl_core.study.session import Session

_FILE_NAME_LENGTH = 80
_WAIT_SECONDS = 120.0  # for another process that makes the first study
_STILL_AT_IT = (
    f"Another process has been making or removing a study of this database for {_WAIT_SECONDS:.0f} seconds; wait until "
    "it is done, or stop it, and start again."
)


@dataclass(frozen=True, slots=True)
class Imported:
    """What rows held, and what of it was new."""

    format: str
    rows: int
    pairs: int
    labels: int
    users: int
    new_pairs: int
    new_labels: int
    new_users: int
    left_out: tuple[tuple[int, str], ...]  # (line or row, why): the first ones
    ignored_fields: dict[str, int]  # fields that nothing is learned from, by how many rows have a value
    n_left_out: int = 0  # how many ``left_out`` would be if all were kept

    @classmethod
    def of(cls, file: OpenedFile, report: ImportReport) -> Imported:
        held, skipped = file.survey, file.survey.skipped + report.left_out
        return cls(
            file.format.name,
            held.rows,
            held.pairs,
            report.labels_new + report.labels_known,
            held.users,
            report.pairs_new,
            report.labels_new,
            report.users_new,
            tuple(skipped.first),
            held.ignored_fields,
            skipped.n,
        )

    def facts(self) -> dict[str, Any]:
        """The same as JSON for programs; its shape stays, and fields may be added."""
        return {
            "format": self.format,
            "rows": self.rows,
            "pairs": self.pairs,
            "labels": self.labels,
            "users": self.users,
            "new": {"pairs": self.new_pairs, "labels": self.new_labels, "users": self.new_users},
            "left_out": [{"row": number, "why": reason} for number, reason in self.left_out],
            "n_left_out": self.n_left_out,
            "ignored_fields": self.ignored_fields,
        }


@needs(OWNER)
def import_rows(
    session: Session, rows: Iterable[ImportRow], *, file: Path | None = None, by: int | None = None
) -> ImportReport:
    """Add pairs and labels; rows that the study already has are skipped.

    Args:
        file: where they stand; its name alone goes into the record of changes.
        by: the acting user.
    """
    return session.store.import_rows(session.id, rows, file=_file_name(file), by=by)


@needs(OWNER)
def import_study(
    session: Session,
    name: str,
    rows: Iterable[ImportRow],
    *,
    file: Path | None = None,
    browser: str = "",
    by: int | None = None,
) -> tuple[StudyRecord, ImportReport]:
    """A new study made of ``rows``, by invitation only, with ``by`` as its owner; no list shows it before it is whole.

    Args:
        file: as in ``import_rows``.

    Raises:
        CoplError: the name is in use, or the rows cannot be read; nothing is left of the study.
    """
    with new_study(session.store, session.settings, name) as record:
        owner = give_owner(session, record.id, by, browser)  # first, so that nobody of the file takes their name
        report = session.store.import_rows(record.id, rows, file=_file_name(file), by=owner)
    return record, report


def _file_name(file: Path | None) -> str | None:
    """The name of a file with what nobody can see written out; its middle is left out of a long one."""
    if file is None:
        return None
    name = visible(
        "".join(one if one.isprintable() or category(one) == "Cf" else "\N{REPLACEMENT CHARACTER}" for one in file.name)
    )
    half = _FILE_NAME_LENGTH // 2
    return name if len(name) <= _FILE_NAME_LENGTH else f"{name[:half]}…{name[1 - half :]}"


@contextmanager
def new_study(store: Store, settings: Settings, name: str) -> Iterator[StudyRecord]:
    """A new study while it is filled: no list shows it before the end, and an error leaves nothing of it.

    Raises:
        CoplError: the name is in use, empty or too long.
    """
    with importing(store):
        record = store.create_study(name, new=True, open=False, ready=False)
        try:
            yield record
            store.finish_study(record.id)
        except BaseException:
            _drop(store, settings, record.id)
            raise


def _drop(store: Store, settings: Settings, study_id: int | None = None) -> int:
    dropped = store.drop_unfinished(study_id)
    for one in dropped:
        shutil.rmtree(settings.snapshots / str(one), ignore_errors=True)
    return len(dropped)


@contextmanager
def importing(store: Store) -> Iterator[None]:
    """While it runs, no start of the studio takes an unfinished study for one whose import was killed.

    Raises:
        CoplError: another process removes such studies, and does not come to an end.
    """
    with store.hold(Right.FILL, seconds=_WAIT_SECONDS) as held:
        if not held:
            raise CoplError(_STILL_AT_IT)
        yield


def drop_unfinished(store: Store, settings: Settings) -> int:
    """Delete what killed imports left; nothing happens while an import runs.  Returns the number of studies."""
    store.end_killed_imports()
    with store.hold(Right.FILL, alone=True) as alone:
        return _drop(store, settings) if alone else 0


def first_study(store: Store, settings: Settings, make: Callable[[], object]) -> StudyRecord:
    """The current study.  Where there is none, one of the processes that share the database makes it, and the others
    wait for it.

    Raises:
        CoplError: another process makes it, and does not come to an end.
    """
    if (found := store.current_study()) is not None:
        return found
    with store.hold(Right.FIRST, alone=True, seconds=_WAIT_SECONDS) as alone:
        if alone and store.current_study() is None:
            drop_unfinished(store, settings)
            with importing(store):
                make()
    if (found := store.current_study()) is None:
        raise CoplError(_STILL_AT_IT)
    return found


@needs(OWNER)
def imports_folder(session: Session) -> Path:
    """The one folder of the studio's machine whose files owners may import in the app."""
    return session.settings.imports_folder.resolve()


@needs(OWNER)
def server_file(session: Session, path: str, *, by: int | None = None) -> tuple[Path, tuple[int, int]]:
    """(a file or folder below ``imports_folder``, what changes when its content does).

    An owner of one study may not read what the studio's process can: exports of other studies, say.  So links are
    followed before it is decided where the file is.

    Args:
        path: from that folder, or from the root.

    Raises:
        CoplError: it is in no such place, or there is nothing that the studio may read.
    """
    folder = imports_folder(session)
    found = below(folder, path.strip())
    if found is None:
        raise CoplError(
            f"{path.strip()} is not in {folder}, the only folder of the studio's machine from which owners import; "
            "ask those who run the studio to put the file itself there, or to name another folder in COPL_IMPORTS."
        )
    try:
        facts = found.stat()
        links = [one for one in found.rglob("*") if below(folder, str(one)) is None] if found.is_dir() else []
    except (FileNotFoundError, NotADirectoryError):
        raise CoplError(
            f"There is no file {path.strip()} in {folder} on the studio's machine; check its name and folder."
        ) from None
    except OSError as error:
        raise CoplError(f"{found} cannot be read ({error.strerror}); check its permissions.") from None
    if links:
        raise CoplError(f"{links[0]} leads out of {folder}; put the file itself there, or import it in a terminal.")
    return found, (facts.st_mtime_ns, facts.st_size)


@needs(OWNER)
def open_import(
    session: Session, path: Path, maps: Sequence[str] = (), annotator: str = "", *, by: int | None = None
) -> OpenedFile:
    """A file of any format, read once: what it is, what will come in and what not.

    Args:
        maps: names and values that the file does not say itself, such as "choice=winner" and "a=0".
        annotator: whose labels they are, where rows do not say it.

    Raises:
        CoplError: the file cannot be taken.
    """
    return open_file(path, read_options(maps, annotator))


@needs(OWNER)
def fields_of_file(session: Session, path: Path, *, by: int | None = None) -> list[str]:
    """Names of the fields in the first records of a file.

    Raises:
        CoplError: the file holds no records.
    """
    return fields_of(path)


@needs(OWNER)
def export(session: Session) -> Iterator[dict]:
    """Every label as a row of the export file (``formats.own``)."""
    return map(with_messages, session.store.export(session.id))


@needs(RESEARCHER)
def prompts(session: Session) -> list[tuple[int, str]]:
    """(id, text) of every prompt."""
    return session.store.prompts(session.id)


@needs(RESEARCHER)
def prompt_responses(session: Session, prompt_id: int) -> list[Response]:
    if session.store.study_of_prompt(prompt_id) != session.id:
        return []
    return session.store.prompt_responses(prompt_id)


@needs(MEMBER)
def pair(session: Session, pair_id: int) -> Pair:
    """A pair of this study.

    Raises:
        CoplError: there is no such pair in this study.
    """
    if session.store.study_of_pair(pair_id) != session.id:
        raise CoplError(f"There is no pair with id {pair_id} in this study; take one of its pairs.")
    return session.store.pair(pair_id)


@needs(MEMBER)
def responses(session: Session, response_ids: Sequence[int]) -> dict[int, Response]:
    """The responses with these ids that exist, by id."""
    return session.store.responses(response_ids)


@needs(RESEARCHER)
def sources(session: Session) -> list[str]:
    """The sources of the study's responses, as their files name them, sorted."""
    return sorted({source for _, source in session.store.sources(session.id)})


@needs(RESEARCHER)
def find_pairs(session: Session, query: str, limit: int = 10) -> tuple[list[Pair], int]:
    """(the first pairs by id whose prompt or responses contain every word of the query, number of all such pairs)."""
    words = query.casefold().split()
    titles = dict(session.store.prompts(session.id))
    pairs = session.store.pairs(session.id)
    texts = session.store.responses(sorted({side for row in pairs for side in row[1:]}))
    found = []
    for pair_id, first, second in pairs:
        prompt = titles[texts[first].prompt_id]
        text = f"{prompt} {texts[first].text} {texts[second].text}".casefold()
        if all(word in text for word in words):
            found.append(Pair(pair_id, texts[first].prompt_id, prompt, texts[first], texts[second]))
    return found[:limit], len(found)
