"""The verbs of leaving: a person's own data as one file, and everything of theirs forgotten."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from copl_core.features import FEATURE_NAMES
from copl_core.records import CoplError, Departure, counted
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import group_names, user_map, user_profile
from copl_core.study.audience import Audience
from copl_core.study.roles import OWN_OR_OWNER, member, needs
from copl_core.study.session import Session
from copl_core.trainer.departures import clean_up, remove_outdated
from copl_core.trainer.schedule import FEWEST

_READ_BYTES = 500_000_000  # of a file, in which the name is looked for; a longer one is listed unread
_REFUSAL_ENDS = (
    " An owner has refused their e-mail address: that goes with the address, so they may come back as anybody may; "
    "exclude them from training instead, or refuse the address again afterwards."
)
_NO_EXPORTS = ("cache", "weights", "snapshots")  # folders of the home that hold no names
KEPT = (
    "The record of changes keeps what was done, under a number and without what was typed. Guidelines and names of "
    "groups belong to the study and stay."
)
GOES = (
    "answers, reasons, tags, drafts, reserved pairs, predictions, reported problems, name, e-mail address, sign-in "
    "links and open browsers"
)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What happened when a person left."""

    departure: Departure
    snapshots: tuple[str, ...]  # removed at once: they had learned from the person
    still_champion: str | None  # serves without the person's row until the run without them ends
    named_in: tuple[Path, ...]  # files in the home folder that name the person: exports, bundles, model cards, backups
    waits: tuple[str, ...]  # what files still hold of what went, and why; the trainer goes on trying
    seconds: float
    n_answers: int = 0  # that counted; the labels that went are more: earlier versions, undone ones, checks

    @property
    def clean(self) -> bool:
        """Whether no file of the installation holds anything of what went, but the champion's."""
        return not self.waits


@needs(OWN_OR_OWNER)
def forget(session: Session, user_id: int, *, by: int | None = None) -> Forgotten:
    """Forget a person: what is theirs goes in one transaction, and the champion is trained again without them.

    Files that were exported stay where they are, and are named if they lie in the home folder.

    Raises:
        CoplError: there is no such person here, or they are the study's only owner; nothing changes.
    """
    began, name = time.monotonic(), member(session, user_id).name
    n_answers = _n_answers(session, user_id)
    named_in = tuple(files_naming(session.settings.home, name))
    with suppress(CoplError):  # else the trainer does it, and what is the person's in it goes here
        session.store.end_killed_imports()
    departure = session.store.forget_user(user_id, fewest=FEWEST, by=by)
    removed: list[str] = []
    try:
        removed = remove_outdated(session.store, session.snapshot_root, session.id)
        waits = clean_up(session.store, session.settings)
    except (CoplError, OSError) as problem:  # the trainer does it: the database says that it is to be done
        waits = [str(problem)]
    champion = session.record.champion
    return Forgotten(
        departure,
        tuple(removed),
        champion if session.store.knows_forgotten(session.id) else None,
        tuple(path for path in named_in if path.exists()),
        tuple(waits),
        time.monotonic() - began,
        n_answers,
    )


def _n_answers(session: Session, user_id: int) -> int:
    """The answers of a person that count, as their own pages count them."""
    return len(session.store.labels(session.id, user_id=user_id))


def to_the_person(done: Forgotten) -> str:
    """What happened, for somebody who has deleted themselves; what is left to do is for owners (``in_words``)."""
    answers = [f"your {counted(done.n_answers, 'answer')}"] if done.n_answers else []
    words = f"Deleted for good: {', '.join([*answers, 'your name'])} and all your ways to sign in."
    if done.still_champion:
        words += " A new model that has never seen your answers is being made; until it is ready, the old one goes on."
    if done.named_in:
        words += " Copies of the study that somebody has made may still name you: ask an owner of the study."
    if done.waits:
        words += " Some files still hold what you deleted; the studio goes on by itself until they do not."
    return words


def in_words(done: Forgotten) -> list[str]:
    """What happened, for owners, in sentences without Markdown."""
    gone, sentences = done.departure.gone, []
    counts = [counted(done.n_answers, "answer")] if done.n_answers else []
    if gone["labels"] > done.n_answers:
        counts.append(f"{counted(gone['labels'], 'label')} in all, with changed and undone answers and checks")
    counts += [counted(gone[f"{what}s"], what) for what in ("reason", "draft", "report") if gone[f"{what}s"]]
    sentences.append(f"Deleted for good: {', '.join([*counts, 'name'])} and all ways to sign in.")
    if gone["refusals"]:
        sentences.append(
            "The refusal of their e-mail address is deleted with it; refuse the address again if they shall not come "
            "back."
        )
    if done.departure.run_id is not None:
        sentences.append(f"Run {done.departure.run_id} trains from scratch without them.")
    if done.still_champion:
        sentences.append(f"Until it ends, snapshot {done.still_champion} serves without their place.")
    elif done.departure.champion and gone["labels"]:
        sentences.append("Too few labels are left for a model, so the study has none until there are more.")
    if done.snapshots:
        sentences.append(f"Removed, since they had learned from them: {', '.join(done.snapshots)}.")
    if done.named_in:
        files = ", ".join(map(str, done.named_in))
        sentences.append(
            f"These files of the home folder name them, or cannot be read; look at them yourself: {files}."
        )
    if done.waits:
        sentences += [*done.waits, "The trainer goes on trying until it is done."]
    return sentences


@needs(OWN_OR_OWNER)
def my_data(session: Session, user_id: int) -> dict[str, Any]:
    """Everything that the study has of a person, as JSON values: what is stored, and what the champion believes."""
    user = member(session, user_id)
    return {
        "study": session.record.name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **session.store.stored_of(user.id),
        "model": _model(session, user_id),
    }


def my_data_file(data: dict[str, Any]) -> bytes:
    """``my_data`` as a file: JSON that people can read."""
    return json.dumps(data, indent=2, ensure_ascii=False, default=str).encode()


def write_my_data(data: dict[str, Any], path: Path) -> None:
    """Write ``my_data`` to a new file.

    Raises:
        CoplError: the file exists or cannot be written.
    """
    if path.exists():
        raise CoplError(f"{path} exists already; name a new file.")
    try:
        path.write_bytes(my_data_file(data))
    except OSError as error:
        raise CoplError(
            f"{path} cannot be written ({error.strerror}); name a file in a folder that is writable."
        ) from error


def files_naming(home: Path, name: str) -> Iterator[Path]:
    """The files of a home folder, but the studio's own, that hold a name as a word, or are too long to read."""
    forms = {form for own in (name, json.dumps(name)[1:-1]) for form in (own.encode(), own.encode("utf-16-le"))}
    wanted = re.compile(rb"(?<!\w)(?:" + b"|".join(map(re.escape, sorted(forms))) + rb")(?!\w)")
    for path in sorted(home.rglob("*")):
        own = path.relative_to(home).parts[0] in _NO_EXPORTS or path.name.startswith("copl.db")
        if not own and path.is_file() and not path.is_symlink() and _names(path, wanted):
            yield path


def _names(path: Path, wanted: re.Pattern[bytes]) -> bool:
    try:
        if path.stat().st_size > _READ_BYTES:
            return True
        if is_zipfile(path):
            with ZipFile(path) as archive:
                members = archive.infolist()
                too_long = sum(one.file_size for one in members) > _READ_BYTES
                return too_long or any(wanted.search(archive.read(one)) for one in members)
        return wanted.search(path.read_bytes()) is not None
    except (OSError, BadZipFile, RuntimeError, NotImplementedError):
        return True  # it cannot be read, so it may


# ---- what the champion believes of a person


def _model(session: Session, user_id: int) -> dict[str, Any] | str:
    """Embedding, group, gates, text weights and statements; a sentence where no snapshot can be read."""
    try:
        snapshot = session.snapshot()
        if snapshot is None:
            return "The study has no snapshot yet."
        place = user_map.position(session, user_id)
        names = group_names.names_of_large(session)  # as the person reads them on the pages
        leanings = user_profile.profile(session, user_id).leanings
        found = {
            "snapshot": snapshot.version,
            "embedding": None if place is None else place.vector.tolist(),
            "embedding_comes_from": None if place is None else place.source,
            "map": None if place is None or place.xy is None else list(place.xy),
            "group": None
            if place is None or place.group is None
            else names.get(place.group, f"Group {place.group + 1}"),
            "group_probability": None if place is None else place.group_probability,
            "statements": [
                {"words": one.words, "by": one.source, "effect": one.effect, "interval": [one.low, one.high]}
                for one in leanings
            ],
        }
        return found | _text_weights(session, snapshot, user_id)
    except CoplError as problem:
        return str(problem)


def _text_weights(session: Session, snapshot: Snapshot, user_id: int) -> dict[str, Any]:
    """The gate's input and a summary of the text weights: by measured feature, and the length of all others."""
    if not snapshot.has_reward:
        return {}
    user, labels = session.store.user(user_id), session.store.labels(session.id, user_id=user_id)
    audience = Audience(snapshot, [(user, labels)], False, with_uncertainty=False)
    found: dict[str, Any] = {"gate_vector": audience.gate_vectors[0].tolist()}
    if audience.text_weights is not None:
        weights = audience.text_weights[0]
        styles = dict(zip(FEATURE_NAMES, weights[-len(FEATURE_NAMES) :].tolist(), strict=True))
        other = float(np.linalg.norm(weights[: -len(FEATURE_NAMES)]))
        found["text_weights"] = {"by_feature": styles, "length_of_the_others": other}
    return found


@needs(OWN_OR_OWNER)
def leaving(session: Session, user_id: int, *, own: bool = False) -> tuple[int, str]:
    """(number of a person's answers, what happens if they leave, in sentences; ``own``: for the person)."""
    n = _n_answers(session, user_id)
    champion = session.record.champion
    after = (
        "The model goes on without you at once, and one that has never seen your answers replaces it."
        if own and champion and n
        else f"Snapshot {champion} goes on without the place of the person until a new one is trained from scratch "
        "without these answers; all snapshots before it are removed."
        if champion and n
        else "No model has learned from them."
    )
    again = _REFUSAL_ENDS if session.store.is_refused(user_id) else ""
    return (
        n,
        f"These go for good: {GOES}. {after} {KEPT} Files that somebody has exported or copied stay where they are."
        + again,
    )
