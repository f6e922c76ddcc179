"""What is wrong with an installation: small checks, each with a finding and what to do.

A check never changes anything and never raises: whatever it meets becomes a finding.  Home and storage are tried with a
small file each, which is removed again.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from secrets import token_hex

from packaging.requirements import Requirement
from safetensors import SafetensorError, safe_open

from copl_core.backups import backups_of
from copl_core.config import Settings
from copl_core.install.program import PROGRAM
from copl_core.install.weights import BUNDLES, FETCH_COMMAND
from copl_core.records import RUN_KINDS, CoplError, DatabaseFacts, Right, counted
from copl_core.snapshots.fetching import Fetching, presence_of
from copl_core.snapshots.snapshot import damage, unusable
from copl_core.storage import Storage, attempt, storage_of
from copl_core.store import Store

SILENT_SECONDS = 30.0  # a trainer writes a heartbeat every second
LITTLE_DISK, TOO_LITTLE_DISK = 2 * 10**9, 2 * 10**8  # bytes that are free
SKEW_SECONDS = 5.0  # between two clocks
_CHECK_TIME = timedelta(hours=1)  # that the checks of a large installation may take, while the trainer copies
_PROBE = bytes(1 << 16)


class _Unread(Exception):
    """A check needs the database, and another check says why it cannot be read."""


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    state: State
    found: str
    do: str = ""

    def line(self) -> str:
        return f"{self.state:8}{self.check:11}{' '.join(f'{self.found} {self.do}'.split())}"

    def facts(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state.value, "found": self.found, "do": self.do}


@dataclass(frozen=True, slots=True)
class Installation:
    """What the checks look at.

    Args:
        facts: of the database; None where it cannot be read, and then ``problem`` says why, or is empty where there is
            no database yet.
        store: that only reads; None where the tables are not those of this program.
    """

    settings: Settings
    facts: DatabaseFacts | None
    problem: str
    store: Store | None
    now: datetime


Found = tuple[State, str, str]


def findings(installation: Installation) -> list[Finding]:
    return [Finding(name, *_result(check, installation)) for name, check in CHECKS.items()]


def worst(found: list[Finding]) -> State:
    order = list(State)
    return max((one.state for one in found), key=order.index, default=State.OK)


def _result(check: Callable[[Installation], Found], installation: Installation) -> Found:
    try:
        return check(installation)
    except _Unread:
        return State.WARNING, "Not looked at, since the database is not as this program needs it.", ""
    except CoplError as problem:
        return State.WRONG, str(problem), ""
    except OSError as problem:
        return (
            State.WRONG,
            f"{problem.filename or 'A file'}: {problem.strerror or problem}.",
            "Mend what the disk says.",
        )
    except Exception as problem:  # whatever a damaged installation holds
        return State.WRONG, f"It cannot be looked at ({type(problem).__name__}: {problem}).", "Restore a backup."


def _ok(found: str) -> Found:
    return State.OK, found, ""


# ---- the database


def _database(installation: Installation) -> Found:
    facts = installation.facts
    if facts is None and not installation.problem:
        return State.WARNING, "There is no database yet.", "The first `copl up` makes it."
    if facts is None:
        return State.WRONG, installation.problem, ""
    if facts.damage:
        return State.WRONG, f"Its pages are damaged: {facts.damage}.", "Stop the studio and restore a backup."
    whole = "all its pages are whole" if facts.damage is not None else "its server checks its pages"
    if facts.unfinished:
        with _store(installation).hold(Right.IMPORT) as held:
            if held:
                found = f"{facts.kind} answers; {whole}. An import that broke off has left rows, which nobody sees."
                return State.WARNING, found, "A trainer that runs removes them: start one, or read its log."
    return _ok(f"{facts.kind} answers; {whole}.")


def _migrations(installation: Installation) -> Found:
    facts = _facts(installation)
    if facts.schema is None:
        return State.WARNING, "It has no tables.", "The next start makes them, or: copl migrate"
    if facts.schema < facts.newest_schema:
        found = f"Its tables have version {facts.schema}, this program version {facts.newest_schema}."
        if facts.damage is None:  # a server
            do = "Back it up, stop the apps and trainers of the older version, and run: copl migrate"
            return State.WRONG, found, do
        return State.WARNING, found, "Back it up; the next start migrates it."
    if facts.schema > facts.newest_schema:
        found = f"Its tables have version {facts.schema}, and this program knows versions up to {facts.newest_schema}."
        return State.WRONG, found, "Start the newer program."
    return _ok(f"version {facts.schema}, the newest.")


def _clock(installation: Installation) -> Found:
    facts = _facts(installation)
    if facts.now is not None and abs(skew := (facts.now - installation.now).total_seconds()) > SKEW_SECONDS:
        found = (
            f"The clock of the database is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's."
        )
        return State.WARNING, found, "Let both follow one time server."
    newest = facts.newest_label
    if newest is not None and newest > installation.now + timedelta(seconds=SKEW_SECONDS):
        found = f"A label is of {newest:%Y-%m-%d %H:%M} UTC, later than now ({installation.now:%Y-%m-%d %H:%M})."
        return State.WARNING, found, "A clock was or is wrong: set it. No label is lost by it."
    return _ok("no label is of the future." if facts.now is None else "the database agrees with this machine.")


# ---- what the trainer makes


def _snapshots(installation: Installation) -> Found:
    store = _store(installation)
    champions = [(study, study.champion) for study in store.studies() if study.champion]
    damaged = []
    for study, version in champions:
        if installation.settings.storage and not (installation.settings.snapshots / str(study.id) / version).exists():
            continue  # it is fetched when somebody wants it
        manifest = next((one.manifest for one in store.snapshots(study.id) if one.version == version), None)
        root = installation.settings.snapshots / str(study.id)
        if problem := damage(root, version, manifest) or unusable(root, version):
            damaged.append(f"the champion {version} of {study.name!r}: {problem}")
    if damaged:
        do = "Choose another champion on the training page, start a fit, or restore a backup."
        return State.WRONG, f"{'; '.join(one.rstrip('.') for one in damaged)}.", do
    return _ok(f"{counted(len(champions), 'champion')}, each as it was written.")


def _storage(installation: Installation) -> Found:
    settings, store = installation.settings, _store(installation)
    if not settings.storage:
        return _ok("none: the home folder alone holds the snapshots.")
    storage = storage_of(settings.storage)
    assert storage is not None
    attempt(
        f"{storage.address} cannot be read",
        presence_of(storage, settings, store.storage_mark).check,
        "make it reachable",
        (),
    )
    if storage.is_folder and not Path(storage.path("")).is_dir():
        return (
            State.WARNING,
            f"There is no folder {storage.address}.",
            "Mount it; where it is new, the first fit makes it.",
        )
    _try_to_write(storage)
    missing = []
    for study in store.studies():
        stored = Fetching.of(store, settings, study.id).stored
        if study.champion and stored and not stored.versions().get(study.champion):
            missing.append(f"the champion {study.champion} of {study.name!r}")
    if missing:
        found = f"{'; '.join(missing)} is not there, and other machines cannot fetch it."
        do = "Mount it, if it is a folder; else start a fit: the trainer then also stores what its home has."
        return State.WRONG, found, do
    return _ok("it can be written, and each champion is there.")


def _try_to_write(storage: Storage) -> None:
    """
    Raises:
        StorageError: a small file cannot be written, read and removed.
    """
    name = f"doctor-{token_hex(8)}"

    def write() -> None:
        with tempfile.NamedTemporaryFile() as probe:
            probe.write(_PROBE)
            probe.flush()
            try:
                storage.put({name: Path(probe.name)})
                if storage.read([name]).get(name) != _PROBE:
                    raise OSError("it does not give back what was written")
            finally:
                storage.remove(name)

    attempt(
        f"{storage.address} cannot be written", write, "make it reachable and writable, or correct COPL_STORAGE", ()
    )


def _trainers(installation: Installation) -> Found:
    seen, start = _store(installation).trainers(), "Start one with `copl up` or `copl worker`; people label meanwhile."
    if not seen:
        return State.WARNING, "No trainer has served this database in the last day.", start
    alive = [one for one in seen if one.state != "stopped" and one.silent_seconds <= SILENT_SECONDS]
    if alive:
        listed = "; ".join(f"{one.in_words}: {one.state}" for one in alive) + "."
        missing = [kind for kind in RUN_KINDS if not any(kind in one.kinds for one in alive)]
        if missing:
            kinds = " or ".join(missing)
            advice = f"Start one with `copl worker --kinds {','.join(missing)}`."
            return State.WARNING, f"{listed} None of them executes {kinds} runs.", advice
        return _ok(listed)
    with suppress(OSError, ValueError):
        if not installation.settings.trainer_given_up.is_file():
            raise FileNotFoundError
        found, _, do = installation.settings.trainer_given_up.read_text().partition(" Read ")
        return State.WRONG, found, f"Read {do}"
    latest = seen[0]
    if latest.state == "stopped":
        return State.WARNING, f"The trainer {latest.worker} was stopped at {latest.seen_at:%Y-%m-%d %H:%M} UTC.", start
    age = f"{latest.silent_seconds:,.0f} s ago"
    return State.WARNING, f"The trainer {latest.worker} wrote its last heartbeat {age}.", start


# ---- this machine


def _weights(installation: Installation) -> Found:
    missing, broken = [], []
    for bundle in BUNDLES.values():
        folder = installation.settings.weights / bundle.folder
        if not folder.is_dir():
            missing.append(bundle.folder)
        elif not any(_opens(path) for path in folder.iterdir()):
            broken.append(bundle.folder)
    if broken:
        do = f"Remove the folder and run: {FETCH_COMMAND}"
        return State.WRONG, f"{', '.join(broken)} in {installation.settings.weights} cannot be read.", do
    if missing:
        return State.WARNING, f"{', '.join(missing)} not fetched.", f"Run once: {FETCH_COMMAND}"
    return _ok(f"{', '.join(bundle.folder for bundle in BUNDLES.values())}.")


def _opens(path: Path) -> bool:
    """Whether a file holds a model, as far as its head says; reading a pipe would wait for ever."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy"):
                return True
        except (SafetensorError, OSError):
            return False
    if path.suffix == ".gguf":
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    return False


def _backups(installation: Installation) -> Found:
    settings, file = installation.settings, installation.settings.database_file
    if file is None:
        return _ok("The database is on a server; back it up with pg_dump.")
    found = backups_of(file)
    if not found and settings.backup_hours:
        return (
            State.WARNING,
            "There is no backup of the database yet.",
            "The trainer makes one, or its log says why not.",
        )
    past = [one for one in found if not one.is_of_future(installation.now + _CHECK_TIME)]
    age = max(installation.now - past[0].made, timedelta()) if past else timedelta()
    newest = f"{counted(len(past), 'backup')}; the newest is {past[0].path}, {_ago(age)}." if past else "No backup."
    if len(past) < len(found):
        return (
            State.WARNING,
            f"{newest} {found[0].path} is dated in the future: a clock is wrong, or was when that copy was made.",
            "Set the clock if it is wrong; if it is right, the trainer removes that copy before older ones.",
        )
    if not settings.backup_hours:
        return _ok(f"{newest} The trainer makes none (COPL_BACKUP_HOURS=0).")
    if age >= timedelta(hours=2 * settings.backup_hours + 1):
        return State.WARNING, newest, "The trainer's log says why it has made no other one."
    return _ok(newest)


def _ago(age: timedelta) -> str:
    hours = age / timedelta(hours=1)
    return f"made {hours:,.1f} hours ago" if hours < 48 else f"made {hours / 24:,.0f} days ago"


def _disk(installation: Installation) -> Found:
    home = installation.settings.home
    if home.exists() and not home.is_dir():
        return State.WRONG, f"{home} is not a folder.", "Choose another with COPL_HOME=…"
    place = next(folder for folder in (home, *home.resolve().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(_PROBE)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        do = "Free some space, make it writable, or choose another with COPL_HOME=…"
        return State.WRONG, f"{place} cannot be written ({error.strerror or error}).", do
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:,.1f} GB are free in {place}."
    if free < LITTLE_DISK:
        return State.WRONG if free < TOO_LITTLE_DISK else State.WARNING, found, "Free some space."
    return _ok(found)


def _versions(installation: Installation) -> Found:
    wanted = list(_requirements())
    missing = [one.name for one in wanted if _installed(one.name) is None]
    if missing:
        do = "Install them: pip install -r requirements.txt, or the package again."
        return State.WRONG, f"Not installed: {', '.join(missing)}.", do
    others = [
        f"{one.name} {found}, not {one.specifier}"
        for one in wanted
        if not one.specifier.contains(found := _installed(one.name) or "", prereleases=True)
    ]
    if others:
        return State.WARNING, f"{'; '.join(others)}.", "They were not tested together; install the listed ones."
    return _ok(f"Python {platform.python_version()}, {counted(len(wanted), 'package')} as tested.")


def _requirements() -> Iterator[Requirement]:
    """What this program needs: of a checkout its list, of an installed package what it says."""
    listed = PROGRAM / "requirements.txt"
    if listed.is_file():
        lines = (line.partition("#")[0].strip() for line in listed.read_text().splitlines())
        yield from (Requirement(line) for line in lines if line and not line.startswith("-"))
        return
    for line in metadata.requires("copl-studio") or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield needed


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _rights(installation: Installation) -> Found:
    home = installation.settings.home
    if not home.is_dir():
        return _ok("there is no home folder yet.")
    about = home.stat()
    if hasattr(os, "geteuid") and about.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        return State.WARNING, f"{home} belongs to another user.", "Run the studio as that user."
    if mode := _open_to_others(about.st_mode):
        found = f"Other users of this machine can open {home} (rights {mode}), with all texts and answers in it."
        return State.WARNING, found, f"Run: chmod 700 {home}"
    return _ok(f"only its owner opens {home}.")


def _open_to_others(mode: int) -> str:
    """The rights as a number where others than the owner have some; empty where they have none."""
    return f"{stat.S_IMODE(mode):04o}" if mode & (stat.S_IRWXG | stat.S_IRWXO) else ""


def _facts(installation: Installation) -> DatabaseFacts:
    if installation.facts is None:
        raise _Unread
    return installation.facts


def _store(installation: Installation) -> Store:
    if installation.store is None:
        raise _Unread
    return installation.store


CHECKS: dict[str, Callable[[Installation], Found]] = {
    "database": _database,
    "migrations": _migrations,
    "snapshots": _snapshots,
    "storage": _storage,
    "weights": _weights,
    "trainers": _trainers,
    "backups": _backups,
    "disk": _disk,
    "clock": _clock,
    "versions": _versions,
    "rights": _rights,
}
