"""Snapshots on disk: immutable folders that appear whole or not at all.

A snapshot is written to a hidden folder next to its final path, flushed, and moved there by one rename.  A version that
can be read is therefore complete, and a process killed at any moment leaves at most a hidden folder, which ``sweep``
removes.  Old versions are removed (``prune``), and their rows in the database stay.  Layout of ``<root>/<version>/``::

    manifest.json     the data and settings it was made from, metrics, and the SHA-256 of every other file
    graph/            GraphState: user and response embeddings, weights, label edges
    layout/           the map of users
    reward/model/     the mixture-of-experts reward model  (missing until one is fitted)
    reward/graph/     the GraphState whose embeddings its gate was trained on
    reward/linear/    the linear text reward of the same users (missing in snapshots of earlier versions)
    reward/mix.json   weights of graph, experts and linear text reward

The reward model is refitted less often than the graph; in between, snapshots share its files by hard link.  Its gate
reads embeddings, and embeddings of two fits are not comparable.  This is why the reward model has its own graph state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError

from copl_core.ids import rows_of
from copl_core.insight.groups import NO_GROUP
from copl_core.insight.layout import Layout
from copl_core.insight.suspects import learned_prior
from copl_core.preference.adapt import Prior
from copl_core.preference.state import GraphState
from copl_core.records import CoplError, SnapshotRecord
from copl_core.reward.gates import SavedGate
from copl_core.reward.linear import LinearReward
from copl_core.snapshots.finite import in_words, not_finite, not_finite_on_disk
from copl_core.snapshots.mix import Mix

_HIDDEN, _REMOVING, FETCHING = ".writing-", ".removing-", ".fetching-"
_FETCHED_SECONDS = 3600.0  # after which an unfinished fetch belongs to a process that was killed
KEPT_NEWEST, KEPT_FITS = 30, 100  # snapshots, and fits of the reward model of which one snapshot stays
_VERSION = re.compile(r"v(\d+)")
_ADVICE = "choose another snapshot as champion on the training page, or start a new fit"
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """One version.  Its parts are read from the folder at first use and never change."""

    folder: Path
    manifest: dict = field(repr=False)
    left: tuple[int, ...] = ()  # users who have left: their rows are not shown, although it has learned from them
    forgotten: int = 0  # the study's revision when the last of them left

    def without(self, left: Sequence[int], forgotten: int) -> Snapshot:
        """This snapshot, not yet read, without the rows of users who have left up to a revision."""
        return Snapshot(self.folder, self.manifest, tuple(left), forgotten)

    def knows(self, forgotten: int) -> bool:
        """Whether it, or the reward model in it, has learned from somebody who left at a revision of the study."""
        reward = self.manifest.get("reward") or {}
        return min(self.watermark, reward.get("watermark", self.watermark)) < forgotten

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def watermark(self) -> int:
        return self.manifest["watermark"]

    @cached_property
    def graph(self) -> GraphState:
        return self._read("graph", GraphState.load).without_users(self.left)

    @cached_property
    def prior(self) -> Prior:
        """The distribution of users in the graph: the prior of a new user's embedding."""
        return Prior.of(self.graph)

    @cached_property
    def learned_prior(self) -> Prior:
        """The prior under which labels that the graph has learned are judged (``insight.suspects.learned_prior``)."""
        return learned_prior(self.graph)

    @cached_property
    def layout(self) -> Layout:
        found = self._read("layout", Layout.load)
        return found.without_users(self.left) if self.left else found

    @cached_property
    def user_groups(self) -> np.ndarray:
        """Group of each user row of the graph (U,), −1 for none."""
        layout, state = self.layout, self.graph
        rows = rows_of(state.user_ids, layout.user_ids)
        if not len(layout.group):
            return np.full(len(rows), NO_GROUP)
        return np.where((rows >= 0) & (state.n_labels > 0), layout.group[rows], NO_GROUP)

    def read_ahead(self) -> None:
        """Read what every page needs of it, so that no page waits for that later."""
        _ = self.prior, self.user_groups

    @property
    def has_reward(self) -> bool:
        return (self.folder / "reward").is_dir()

    @cached_property
    def reward_graph(self) -> GraphState:
        """The graph state whose embeddings the gate of the reward model reads."""
        return self._read("reward/graph", GraphState.load).without_users(self.left)

    @cached_property
    def reward_prior(self) -> Prior:
        """The distribution of users in the reward graph."""
        return Prior.of(self.reward_graph)

    @cached_property
    def gate(self) -> SavedGate:
        """The gate of the reward model, without the model itself."""
        return self._read("reward/model", SavedGate.load)

    @cached_property
    def backbone(self) -> str:
        """The name of the language model with which its reward model reads texts; it need not be one."""
        facts = self._read("reward/model/reward.json", lambda path: json.loads(path.read_text())["config"])
        return str(facts["backbone"])

    @cached_property
    def mix(self) -> Mix:
        return self._read("reward/mix.json", lambda path: Mix.read(json.loads(path.read_text())))

    @cached_property
    def linear(self) -> LinearReward | None:
        """The linear text reward beside the reward graph; None in snapshots of earlier versions, and where somebody has
        left, on whose labels its tables stand.
        """
        if self.left or not (self.has_reward and (self.folder / "reward" / "linear").is_dir()):
            return None
        state = self.reward_graph
        found = self._read("reward/linear", LinearReward.load)
        if not found.belongs_to(len(state.user_ids), len(state.response_ids), len(state.labels)):
            raise CoplError(
                f"Snapshot {self.version} is damaged: its reward/linear belongs to another graph; {_ADVICE}."
            )
        return found

    @property
    def reward_folder(self) -> Path:
        return self.folder / "reward" / "model"

    def _read(self, part: str, load: Callable[[Path], T]) -> T:
        """One part of the snapshot; its files may be lost or changed since the version was opened."""
        try:
            found = load(self.folder / part)
        except (CoplError, OSError, ValueError, KeyError, TypeError, SafetensorError) as problem:
            raise CoplError(f"Snapshot {self.version} is damaged: its {part} cannot be read; {_ADVICE}.") from problem
        if part != "layout" and (names := not_finite(found)):  # a map has no place for people who have no labels
            raise CoplError(f"Snapshot {self.version} cannot be used: its {part} has {in_words(names)}; {_ADVICE}.")
        return found


def load_snapshot(root: Path, version: str) -> Snapshot:
    """Open a version after checking that all its files exist and have the size with which they were written.

    Raises:
        CoplError: the folder is missing or damaged.
    """
    folder = root / version
    if not folder.exists() and _VERSION.fullmatch(version):
        raise CoplError(
            f"Snapshot {version} is not on this disk: it was made on another, or is an old one that was removed (the "
            f"champion, those with a note, one of each fit of the reward model and the newest {KEPT_NEWEST} stay); "
            f"{_ADVICE}."
        )
    try:
        if not (folder / "manifest.json").is_file():  # reading a pipe would wait for ever
            raise FileNotFoundError
        manifest = json.loads((folder / "manifest.json").read_text())
        sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CoplError(
            f"Snapshot {version} cannot be read ({folder / 'manifest.json'} is missing or damaged); {_ADVICE}."
        ) from None
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise CoplError(f"Snapshot {version} is damaged: {name} is missing or cut short; {_ADVICE}.")
    return Snapshot(folder, manifest)


def verify(snapshot: Snapshot) -> list[str]:
    """Names of the files that are missing or differ from what was written (SHA-256)."""
    return [
        name
        for name, facts in snapshot.manifest["files"].items()
        if not (snapshot.folder / name).is_file() or digest_of(snapshot.folder / name) != facts["sha256"]
    ]


def damage(root: Path, version: str, manifest: str | None = None) -> str:
    """What is wrong with the files of a version, empty where they are as they were written.

    Args:
        manifest: SHA-256 of its manifest; None: not known.
    """
    try:
        names = verify(load_snapshot(root, version))
        if manifest is not None and digest_of(root / version / "manifest.json") != manifest:
            names.insert(0, "manifest.json")
    except (CoplError, OSError) as problem:
        return str(problem)
    return f"{', '.join(names[:3])} of {version} differ from what was written" if names else ""


def unusable(root: Path, version: str) -> str:
    """Why the parts of a version that is on this disk cannot be read or used, empty where they can."""
    try:
        snapshot = load_snapshot(root, version)
        _ = snapshot.graph, snapshot.layout
        if snapshot.has_reward:
            _ = snapshot.reward_graph, snapshot.gate, snapshot.mix, snapshot.linear
            if names := not_finite_on_disk(snapshot.reward_folder):
                return f"its reward model has {in_words(names)}"
    except (CoplError, OSError) as problem:
        return str(problem)
    return ""


def write_snapshot(
    root: Path,
    version: str,
    *,
    graph: GraphState,
    layout: Layout,
    manifest: dict,
    save_reward: Callable[[Path], None] | None = None,
) -> Snapshot:
    """Write a version to a hidden folder and move it to its final path with one rename.

    Args:
        save_reward: fills an empty folder with ``model/``, ``graph/`` and ``mix.json``; ``None`` writes no reward.

    Raises:
        CoplError: the version exists already, the files cannot be written, or a number is not finite.
    """
    target = root / version
    if target.exists():
        raise CoplError(f"Snapshot {version} exists already in {root}; versions are never written twice.")
    hidden = root / f"{_HIDDEN}{version}-{os.getpid()}"
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        for part, save in (("graph", graph.save), ("layout", layout.save), ("reward", save_reward)):
            if save:
                (hidden / part).mkdir(parents=True)
                save(hidden / part)
        if names := not_finite(graph) or (hidden / "reward").is_dir() and not_finite_on_disk(hidden / "reward"):
            raise CoplError(
                f"Snapshot {version} is not published, since what was fitted has {in_words(names)}: the training broke "
                "down. The champion stays; start a fit of graph and reward model."
            )
        manifest = {**manifest, "version": version, "files": _facts(hidden)}
        (hidden / "manifest.json").write_text(json.dumps(manifest, indent=1))
        flush(hidden)
        os.rename(hidden, target)
        _flush_folder(root)
    except (OSError, SafetensorError) as problem:
        raise CoplError(
            f"Snapshot {version} could not be written to {root} ({problem}); "
            "free some space or make the folder writable, then start the fit again."
        ) from problem
    finally:
        shutil.rmtree(hidden, ignore_errors=True)  # exists only if something went wrong
    return Snapshot(target, manifest)


def record_of(snapshot: Snapshot) -> SnapshotRecord:
    """The row in the database of a snapshot that was just written."""
    manifest, reward = snapshot.manifest, snapshot.manifest["reward"]
    metrics = {
        **manifest["metrics"],
        "reward_watermark": reward and reward["watermark"],
        "seconds": manifest["seconds"],
        "kind": manifest["kind"],
        "data": manifest["data"],
        "fitted_in": reward and reward["fitted_in"],
    }
    return SnapshotRecord(
        snapshot.version,
        manifest["run"],
        manifest["watermark"],
        manifest["labels"],
        metrics,
        datetime.now(UTC),
        manifest=digest_of(snapshot.folder / "manifest.json"),
    )


def share_reward(source: Snapshot) -> Callable[[Path], None]:
    """A ``save_reward`` that links the reward files of another snapshot instead of writing them again.

    It raises ``CoplError`` if they are damaged, so that no new manifest holds the digest of a damaged file.
    """

    def save(folder: Path) -> None:
        damaged = [name for name in verify(source) if name.startswith("reward/")]
        if damaged:
            raise CoplError(
                f"The reward model of snapshot {source.version} is damaged ({', '.join(damaged)}), so it "
                "cannot be shared; start a fit of graph and reward model."
            )
        shutil.copytree(source.folder / "reward", folder, copy_function=_link, dirs_exist_ok=True)

    return save


def newest_number(root: Path) -> int:
    """The number of the newest version that has a folder, 7 of ``v0007``; 0 where there is none.

    The database gives the next one (``Store.next_version``).
    """
    return max((int(name.removeprefix("v")) for name in on_disk(root)), default=0)


def on_disk(root: Path) -> set[str]:
    """The versions that have a folder."""
    return {path.name for path in root.glob("v*") if _VERSION.fullmatch(path.name)}


def versions_to_keep(records: Sequence[SnapshotRecord], champion: str | None) -> set[str]:
    """The versions that stay on disk: the champion, those with a note, the newest ``KEPT_NEWEST``, and the newest one
    of each of the last ``KEPT_FITS`` fits of the reward model.

    Args:
        records: of all snapshots of the study, newest first.
    """
    kept = {record.version for record in records if record.version == champion or record.note}
    kept |= {record.version for record in records[:KEPT_NEWEST]}
    newest_of_fit: dict[str, str] = {}
    for record in records:
        fitted_in = record.metrics.get("fitted_in")
        if fitted_in and len(newest_of_fit) < KEPT_FITS:
            newest_of_fit.setdefault(fitted_in, record.version)
    return kept | set(newest_of_fit.values())


def prune(root: Path, kept: set[str]) -> list[str]:
    """Remove the versions that are not kept, each at once by a rename; returns their names.

    The files of a reward model that another version shares by hard link stay there.
    """
    removed = []
    for version in sorted(on_disk(root) - kept):
        hidden = root / f"{_REMOVING}{version}"
        try:
            os.rename(root / version, hidden)
        except OSError:
            continue  # it is tried again after the next run
        shutil.rmtree(hidden, ignore_errors=True)  # ``sweep`` removes what a kill leaves
        removed.append(version)
    return removed


def set_aside(root: Path, version: str) -> None:
    """Take a damaged version from disk, at once; the files that another version shares by hard link stay there."""
    hidden = root / f"{_REMOVING}{version}-{os.getpid()}"
    with contextlib.suppress(OSError):  # another process did so
        os.rename(root / version, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def outdated(root: Path, forgotten: int) -> set[str]:
    """The versions on disk that have learned from somebody who left at a revision of the study or earlier; those that
    cannot be read are not among them.
    """
    found = set()
    for version in on_disk(root):
        with contextlib.suppress(CoplError):  # damaged, or removed meanwhile
            if load_snapshot(root, version).knows(forgotten):
                found.add(version)
    return found


def sweep(root: Path, known: set[str]) -> list[str]:
    """Remove what a killed worker left: incomplete folders, and versions without a row in the database.

    Args:
        known: the versions in the database.
    Returns:
        Names of the removed folders.  Folders with other names than versions stay.
    """
    removed = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        unrecorded = _VERSION.fullmatch(path.name) and path.name not in known
        if unrecorded or path.name.startswith((_HIDDEN, _REMOVING)) or _is_left(path):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def _is_left(path: Path) -> bool:
    """Whether a folder is a fetch (``snapshots.stored``) whose process was killed; others go on meanwhile."""
    try:
        return path.name.startswith(FETCHING) and time.time() - path.stat().st_mtime > _FETCHED_SECONDS
    except OSError:
        return False


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _facts(folder: Path) -> dict[str, dict]:
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": digest_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as manifests hold it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(folder: Path) -> None:
    """Wait until the disk holds a folder with all its files."""
    for path in folder.rglob("*"):
        if path.is_dir():
            _flush_folder(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
