"""The verbs of bundles: a whole study into one file, and from such a file into a new study."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from copl_core.config import Settings
from copl_core.folders import below
from copl_core.formats.bundle import Bundle, BundleWriter, open_bundle
from copl_core.formats.own import whole
from copl_core.ids import rows_of
from copl_core.install.weights import BUNDLES
from copl_core.records import CoplError, StudyRecord
from copl_core.snapshots.copies import copy_snapshot
from copl_core.snapshots.fetching import Fetching
from copl_core.snapshots.snapshot import Snapshot, digest_of, load_snapshot, verify
from copl_core.store import Store
from copl_core.study import access, contents
from copl_core.study.roles import OWNER, TERMINAL, needs
from copl_core.study.session import Session

_COUNTED = ("users", "pairs", "labels", "tasks")  # of which a report names the number of rows


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What a bundle holds, or what came out of one."""

    study: str
    rows: dict[str, int]  # of ``_COUNTED``
    snapshot: str | None  # the champion whose files are in it
    without: str = ""  # why the champion's files are not in it, in a sentence


@needs(TERMINAL)
def backup(session: Session, path: Path) -> BundleReport:
    """Write everything of the study, as it is at this moment, into a new file.  Others keep working.

    Raises:
        CoplError: the file exists, or cannot be written.
    """
    path = Path(path)
    if path.is_file():
        raise CoplError(f"{path} exists already; name a new file.")
    study: dict[str, Any] = {}  # as it was when the reading began

    def take(part: str, rows: Iterator[dict[str, Any]]) -> None:
        if part == "study":
            study.update(next(rows))
            rows = iter([study])
        bundle.add_rows(part, rows)

    with whole(path) as target, BundleWriter(target) as bundle:
        session.store.read_study(session.id, take)
        version, without = _add_champion(session, study["champion"], bundle)
        facts = {
            "schema": session.store.schema(),
            "study": study["name"],
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "snapshot": version,
        }
        bundle.finish(facts)
    return BundleReport(facts["study"], _counts(bundle.members), version, without)


@needs(OWNER)
def bundle_file(session: Session, *, by: int | None = None) -> bytes:
    """The file of ``backup``, for a download."""
    with TemporaryDirectory(prefix="copl-bundle-") as folder:
        path = Path(folder) / "bundle.zip"
        backup(session, path)
        return path.read_bytes()


@needs(OWNER)
def restore(
    session: Session, path: Path, name: str = "", *, browser: str = "", by: int | None = None
) -> tuple[StudyRecord, BundleReport]:
    """``restore_study`` for an owner of this study, who becomes an owner of the new one.

    Raises:
        CoplError: as there, or the reward model needs a language model that pages may not name: an owner of one study
            may not make the studio open any folder of its machine, or fetch a model.
    """
    settings = session.settings
    return restore_study(
        session.store,
        settings,
        path,
        name,
        give=lambda made: access.give_owner(session, made, by, browser),
        opens=lambda backbone: _opens(settings, backbone),
    )


def restore_study(
    store: Store,
    settings: Settings,
    path: Path,
    name: str = "",
    give: Callable[[int], int | None] = lambda study_id: None,
    opens: Callable[[str], bool] = lambda backbone: True,
) -> tuple[StudyRecord, BundleReport]:
    """A new study from a bundle; no list shows it before it is whole.

    Args:
        name: of the study; empty: the name in the bundle.
        give: called with the study's id, to give it an owner, whose id it returns.
        opens: whether the reward model may need the language model of a name.

    Raises:
        CoplError: the file is no whole bundle of this version or an earlier one, the name is in use, or ``opens`` says
            no; nothing is left of the study.
    """
    with open_bundle(path, store.schema()) as bundle:
        study = bundle.study()
        with contents.new_study(store, settings, name.strip() or study["name"]) as record:
            ids = store.restore_rows(record.id, bundle.rows())
            known = {one.version for one in store.snapshots(record.id)}
            version, restored = study.get("champion") if bundle.files else None, None
            if version is not None:
                root = settings.snapshots / str(record.id)
                restored = _restore_champion(root, _checked(version, known), bundle, ids, opens)
            manifest = digest_of(restored.folder / "manifest.json") if restored else None
            made = str(bundle.manifest.get("made", ""))[:40]
            store.finish_restored(record.id, study | {"champion": version}, made, manifest, by=give(record.id))
            if restored and (stored := Fetching.of(store, settings, record.id).stored):
                stored.put(restored)
        return record, BundleReport(record.name, _counts(bundle.manifest["members"]), version)


def _add_champion(session: Session, version: str | None, bundle: BundleWriter) -> tuple[str | None, str]:
    """(the champion whose files are added, why they are not)."""
    if version is None:
        return None, ""
    try:
        session.bring(version)
        snapshot = load_snapshot(session.snapshot_root, version)
        damaged = verify(snapshot)
    except CoplError as problem:
        return None, str(problem)
    if snapshot.knows(session.record.forgotten):
        return None, f"Snapshot {version} has learned from a person who has left; the next one takes its place."
    if damaged:
        return None, f"Snapshot {version} is damaged: {damaged[0]} differs from what was written."
    for name in ("manifest.json", *snapshot.manifest["files"]):
        bundle.add_file(f"snapshot/{name}", snapshot.folder / name)
    return version, ""


def _checked(version: object, known: set[str]) -> str:
    """The name of a champion, which becomes that of a folder."""
    if not isinstance(version, str) or version not in known or not re.fullmatch(r"v\d{1,9}", version):
        raise CoplError(f"The bundle has no snapshot {str(version)[:60]!r}; make the bundle again.")
    return version


def _opens(settings: Settings, backbone: str) -> bool:
    """Whether a page may name it: the studio's own language models, and folders below that of models.

    Ids are not among them: opened as a backbone, a model that is not on the machine is fetched.
    """
    own = backbone in BUNDLES or backbone == settings.backbone
    return own or (Path(backbone).is_absolute() and below(settings.model_root, backbone) is not None)


def _restore_champion(
    root: Path, version: str, bundle: Bundle, ids: dict[str, np.ndarray], opens: Callable[[str], bool]
) -> Snapshot:
    """Write the champion of a bundle, with the ids of this database, to the folder of the study's snapshots."""
    shutil.rmtree(root, ignore_errors=True)  # of an earlier study of this id that was never whole
    aside = root / ".writing-restored"
    bundle.extract(aside)
    source = _whole_snapshot(root, aside.name, bundle)
    if source.has_reward and not opens(source.backbone):
        raise CoplError(
            f"The reward model of the bundle needs the language model {source.backbone[:200]!r}, which is neither the "
            "studio's own (COPL_BACKBONE) nor in its folder of models (COPL_MODELS); let the person who runs the "
            "studio restore the file in a terminal."
        )
    runs, run = dict(ids["runs"].T.tolist()), source.manifest.get("run")
    restored = copy_snapshot(
        source,
        root,
        version,
        source.manifest | {"study": int(root.name), "run": runs.get(run) if type(run) is int else None},
        users=lambda own: _renumbered(own, ids["users"]),
        responses=lambda own: _renumbered(own, ids["responses"]),
    )
    shutil.rmtree(aside)
    return restored


def _whole_snapshot(root: Path, name: str, bundle: Bundle) -> Snapshot:
    """The extracted snapshot, after all its parts have been read.

    Raises:
        CoplError: it is damaged, or its manifest names other files than the bundle has.
    """
    try:
        found = load_snapshot(root, name)
        same = {"manifest.json", *found.manifest["files"]} == set(bundle.files)
        if same and type(found.watermark) is int and not verify(found):
            parts: list[object] = [found.graph, found.layout]
            if found.has_reward:
                parts += [found.reward_graph, found.mix, found.gate, found.linear, found.backbone]
            return found
    except (CoplError, KeyError, TypeError):
        pass
    raise CoplError(f"The snapshot in {bundle.path} is damaged; make the bundle again.")


def _renumbered(own: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The ids here (n,) of ids (n,) of the bundle."""
    rows = rows_of(own, ids[0])
    if (rows < 0).any():
        raise CoplError("The snapshot of the bundle is about people or texts that it lacks; make the bundle again.")
    return ids[1][rows]


def _counts(members: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {part: members.get(f"{part}.jsonl", {}).get("rows", 0) for part in _COUNTED}
