"""The verbs of the end of a study: an owner deletes it, with everything that is of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from copl_core.records import CoplError, DeletedStudy, Deletion, counted, counted_people
from copl_core.study.forget import files_naming
from copl_core.study.roles import OWNER, TERMINAL, needs
from copl_core.study.session import Session
from copl_core.trainer import deletions

_SECONDS = 5.0  # for which somebody before a page waits; the trainer goes on
GOES = (
    "people and their sign-in, questions, answers, pairs, labels, reasons, drafts, guidelines, reports, invites, "
    "tokens of programs, the record of changes, runs, and snapshots on every disk and in the storage"
)
KEPT = (
    "One line stays in the installation: the name of the study, when it was deleted and how much it held. Files that "
    "somebody has exported or copied stay where they are."
)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What happened when a study was deleted."""

    study: DeletedStudy
    named_in: tuple[Path, ...]  # files in the home folder that name the study: exports, bundles, model cards, backups
    waits: tuple[str, ...]  # what is to be done yet, and why; the trainer goes on trying

    def sentences(self) -> list[str]:
        """What happened, without Markdown."""
        held = f"{counted(self.study.labels, 'label')} of {counted_people(self.study.users)}"
        found = [f"{self.study.name} is deleted: {held}."]
        if self.named_in:
            files = ", ".join(map(str, self.named_in))
            found.append(f"These files of the home folder name it, or cannot be read; look at them yourself: {files}.")
        if self.waits:
            found += [*self.waits, "The study is closed; the trainer goes on until all of it is gone."]
        return found


@needs(OWNER)
def before_deletion(session: Session) -> str:
    """What goes if the study is deleted, in sentences."""
    people = sum(session.store.user_counts(session.id).values())
    labels = session.store.label_count(session.id)
    return (
        f"{counted(labels, 'label')} of {counted_people(people)}. These go for good: {GOES}. {KEPT} Take a copy first: "
        "a study is made again from its bundle."
    )


@needs(OWNER)
def delete_study(session: Session, name: str, *, seconds: float | None = _SECONDS, by: int | None = None) -> Deleted:
    """Delete the study.  It is closed at once; its rows and files go in short steps, here or in the trainer.

    Args:
        name: of the study, as somebody has typed it.
        seconds: for which rows are deleted here, at most; None: until all are gone.

    Raises:
        CoplError: that is another name, or the study is the only one of the installation; nothing changes.
    """
    record = session.record
    if name.strip() != record.name:
        raise CoplError(f"Nothing is deleted: the name to type is {record.name}.")
    named_in = tuple(files_naming(session.settings.home, record.name))
    begun = session.store.begin_deletion(session.id, by=by)
    try:
        waits = deletions.go_on(session.store, session.settings, seconds)
    except (CoplError, OSError) as problem:  # the trainer does it: the database says that it is to be done
        waits = [str(problem)]
    return Deleted(begun, tuple(path for path in named_in if path.exists()), tuple(waits))


@needs(TERMINAL)
def deleted_studies(session: Session) -> list[str]:
    """One line for each study that was deleted from this installation."""
    return [_line(one) for one in session.store.deleted_studies()]


def _line(study: DeletedStudy) -> str:
    held = f"{counted(study.labels, 'label')} of {counted_people(study.users)}"
    by = "by an owner in the app" if study.in_app else "in a terminal"
    going_on = "" if study.state is Deletion.DONE else "; some of it is still to be removed"
    return f"{study.name!r}, {held}, was deleted {study.at:%Y-%m-%d %H:%M} {by}{going_on}."
