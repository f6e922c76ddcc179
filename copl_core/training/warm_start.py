"""What a fit of the preference graph takes over from an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from copl_core import features
from copl_core.preference.config import Architecture, GraphConfig
from copl_core.preference.gcf import BY_USER, STORED_WEIGHTS, CoplGraph
from copl_core.preference.state import GraphState
from copl_core.records import TrainingData

MIN_KNOWN = 1 / 3  # share of the users with labels whose ids must be known for a large graph to start from them
GROWTH = 2  # times as many texts as the text projection was fitted on: it is fitted again
STORED_BY_USER = tuple(STORED_WEIGHTS.get(name, name) for name in BY_USER)
_BY_RESPONSE = ("response_residual", "response_bias")


def needs_new_projection(phi: np.ndarray, config: GraphConfig, warm: GraphState) -> bool:
    """Whether φ has other features, or there are so many new texts that the old directions miss their differences.

    The weights belong to the old directions, so a graph with a new text projection starts from scratch.
    """
    if warm.features_version != features.VERSION:
        return True
    if warm.weights["phi_mean"].shape != (phi.shape[1],) or "phi_texts" not in warm.weights:
        return True  # versions that did not store phi_texts held out other labels, which their members have learned
    width, n_texts = warm.weights["phi_basis"].shape[1], warm.weights["phi_texts"].item()
    narrow = width < min(config.architecture.text_dim, phi.shape[1])
    return narrow and len(phi) >= 1.1 * n_texts or len(phi) >= GROWTH * n_texts


@dataclass(frozen=True)
class WarmStart:
    """The weights of an earlier fit, with the ids of its rows."""

    user_ids: np.ndarray
    response_ids: np.ndarray
    weights: dict[str, np.ndarray]  # by stored name, "0.user_residual"
    architecture: Architecture
    known: float  # share of the users with labels whose ids it knows

    @classmethod
    def of(cls, state: GraphState, data: TrainingData) -> WarmStart:
        labelled = np.bincount(data.labels.user, minlength=data.n_users) > 0
        known = labelled[_matched(data.user_ids, state.user_ids)[0]].sum() / labelled.sum()
        architecture = GraphConfig.of(state.config).architecture
        return cls(state.user_ids, state.response_ids, state.weights, architecture, known)

    def of_users(self, user_ids: np.ndarray) -> WarmStart:
        """The same without the rows of other users."""
        kept = np.isin(self.user_ids, user_ids)
        weights = {
            name: value[kept] if name.partition(".")[2] in STORED_BY_USER else value
            for name, value in self.weights.items()
        }
        return WarmStart(self.user_ids[kept], self.response_ids, weights, self.architecture, self.known)

    @torch.no_grad()
    def copy_into(self, network: CoplGraph, member: int, data: TrainingData) -> bool:
        """Copy the weights of a member: shared ones where shapes match, id rows where the id is known.

        Layers with other starting values (``GraphConfig.sized``) are not copied: their weights have another meaning.
        If ids can start from the graph (``spectral``), they are not copied either when they belong to such layers or
        most users are new: a few old rows would leave the new ones at zero.

        Returns:
            whether ids were copied.
        """
        architecture, before = network.config.architecture, self.architecture
        as_before = (before.message_start, before.mixing) == (architecture.message_start, architecture.mixing)
        rows = {
            "user": _matched(data.user_ids, self.user_ids),
            "response": _matched(data.response_ids, self.response_ids),
        }
        ids = not architecture.spectral or (
            as_before
            and bool(self.known >= MIN_KNOWN)
            and self.weights.get(f"{member}.user_residual", np.empty((0, 0))).shape[1] == architecture.dim
        )
        for name, value in network.state_dict().items():
            stored = self.weights.get(f"{member}.{name}")
            if stored is None or (name.startswith("convs.") and not as_before):
                continue
            old = torch.as_tensor(stored)
            if old.numel() == value.numel() == 1 and name not in STORED_BY_USER:
                old = old.reshape(value.shape)  # earlier versions stored a number as a row
            if old.shape[1:] != value.shape[1:]:
                continue
            if name in STORED_BY_USER or name in _BY_RESPONSE:
                if ids or not name.endswith("_residual"):
                    here, there = rows["user" if name in STORED_BY_USER else "response"]
                    value[here] = old[there]
            elif old.shape == value.shape:
                value.copy_(old)
        return ids


def _matched(ids: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, here, there = np.intersect1d(ids, old, return_indices=True)
    return here, there
