"""What a fit starts from: the champion, or nothing, with the reason in words.

A graph run shares the reward model of the champion.  Without the champion's files it would replace the champion by a
snapshot that has none, so it fails where other files would do, and starts from nothing only if they are damaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from copl_core.records import CoplError, SnapshotAway, SnapshotRecord
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, verify
from copl_core.store import Store
from copl_core.trainer.shared_snapshots import SharedSnapshots

_LOST = "Where its files are lost, start a full fit, which trains everything from nothing."


@dataclass(frozen=True, slots=True)
class Start:
    snapshot: Snapshot | None  # None: the fit starts from nothing
    note: str = ""  # why it starts from nothing though there is a champion, in a sentence


def start_of(store: Store, shared: SharedSnapshots, study_id: int, kind: str) -> Start:
    """The champion, to start warm from; nothing where there is none or somebody whom it knows has left.

    Raises:
        CoplError: its files are not here, and the run, a graph run, would publish without its reward model.
    """
    champion = store.champion(study_id)
    if champion is None or store.knows_forgotten(study_id):
        return Start(None)
    root = shared.settings.snapshots / str(study_id)
    problem = _why_away(shared, root, study_id, champion.version)
    if problem and kind == "graph":
        raise CoplError(f"{problem} The champion stays.")
    return Start(None, f"Trained from nothing. {problem}") if problem else _opened(root, champion, kind)


def _why_away(shared: SharedSnapshots, root: Path, study_id: int, version: str) -> str:
    """Why the folder of a version is not on this machine; empty where it is."""
    try:
        shared.bring(study_id, version)
    except SnapshotAway as problem:
        if (root / version).exists():  # a damaged copy, whose original cannot be fetched
            return ""
        return f"The champion {version} is not in {root} of this trainer. {problem} {_LOST}"
    if (root / version).exists():
        return ""
    return (
        f"The champion {version} is not in {root} of this trainer, and without COPL_STORAGE no other machine can give "
        "it; let all trainers and apps share one COPL_HOME, or set the same COPL_STORAGE for all, then start the fit "
        f"again. {_LOST}"
    )


def _opened(root: Path, champion: SnapshotRecord, kind: str) -> Start:
    try:
        snapshot = load_snapshot(root, champion.version)
        damaged = [f"{name} differs from what was written" for name in verify(snapshot)]
    except (CoplError, OSError) as error:
        return Start(None, _from_damaged(champion, kind, str(error)))
    if damaged:
        return Start(None, _from_damaged(champion, kind, f"{'; '.join(damaged)}."))
    return Start(snapshot)


def _from_damaged(champion: SnapshotRecord, kind: str, damage: str) -> str:
    lost = kind == "graph" and champion.metrics.get("reward_watermark") is not None
    without = " The new snapshot has no reward model; start a full fit, which trains one." if lost else ""
    return f"Trained from nothing, since the champion {champion.version} is damaged: {damage}{without}"
