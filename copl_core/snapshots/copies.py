"""A snapshot for another database: the same model, with the ids that people and responses have there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from copl_core.ids import rows_of
from copl_core.insight.found_features import FoundFeatures
from copl_core.insight.layout import Layout
from copl_core.preference.state import GraphState
from copl_core.snapshots.snapshot import Snapshot, write_snapshot

NewIds = Callable[[np.ndarray], np.ndarray]  # ids (n,) → ids (n,) of the same rows


def copy_snapshot(
    source: Snapshot, root: Path, version: str, manifest: dict, *, users: NewIds, responses: NewIds
) -> Snapshot:
    """Write ``source`` as a version below ``root``.

    Args:
        manifest: of the copy; ``version`` and ``files`` are those of the copy.
        users, responses: the ids that take the place of the source's.

    Raises:
        CoplError: a part cannot be read, or the copy cannot be written.
    """

    def graph(state: GraphState) -> GraphState:
        return replace(state, user_ids=users(state.user_ids), response_ids=responses(state.response_ids))

    def found(own: FoundFeatures) -> FoundFeatures:
        rows = rows_of(own.examples, source.graph.response_ids)  # −1 stays −1
        return replace(own, examples=np.append(responses(source.graph.response_ids), -1)[rows])

    def layout(own: Layout) -> Layout:
        return replace(
            own,
            user_ids=users(own.user_ids),
            absent=None if own.absent is None else layout(own.absent),
            found=None if own.found is None else found(own.found),
        )

    def save_reward(target: Path) -> None:
        shutil.copytree(source.reward_folder, target / "model")
        shutil.copyfile(source.folder / "reward" / "mix.json", target / "mix.json")
        graph(source.reward_graph).save(target / "graph")
        if source.linear is not None:
            source.linear.save(target / "linear")

    return write_snapshot(
        root,
        version,
        graph=graph(source.graph),
        layout=layout(source.layout),
        manifest=manifest,
        save_reward=save_reward if source.has_reward else None,
    )
