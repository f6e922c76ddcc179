"""Fit the preference graph: an ensemble of small networks, each stopped on its own held-out labels.

Each member holds out a different part of the labels (folds of one hash), so that together they learn from every label.
The held-out metrics are computed over all folds.  ``graph_trainer`` trains one member.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from copl_core import features
from copl_core.features import FEATURE_NAMES
from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.state import GraphState, read_text
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.graph_trainer import GraphData, Member, Report, Save, edge_share_for
from copl_core.training.losses import MAKING_MODULES, temperature_of, torch_generator
from copl_core.training.metrics import measures
from copl_core.training.progress import HELD_OUT, Progress
from copl_core.training.split import draws

_BY_USER = ("user_residual", "user_side", "user_firmness")  # stored names (``gcf.STORED_WEIGHTS``)
_BY_RESPONSE = ("response_residual", "response_bias")
MIN_KNOWN = 1 / 3  # share of the users with labels whose ids must be known for a large graph to start from them
GROWTH = 2  # times as many texts as the text projection was fitted on: it is fitted again
SALT = 0  # of the draw of held-out labels, which no seed changes: a warm member has learned all other labels


def fit_graph(
    data: TrainingData,
    phi: np.ndarray,
    config: GraphConfig | None = None,
    *,
    seed: int,
    device: str = "cpu",
    warm: GraphState | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    part: str = "graph",
) -> GraphState:
    """Fit users and responses of ``data`` from their labels and text embeddings.

    Args:
        phi: (R, P) raw text embeddings, by response row.
        warm: an earlier state; members start from its weights where ids and shapes still match, unless there are so
            many new texts that the text projection is fitted again.
        progress: ``(phase, step, steps, loss)``; an exception from it ends the fit and propagates.
        checkpoint: stores the state of the fit under names that begin with ``part``; after an interruption the same
            call resumes from it and gives the same result as an uninterrupted fit.
    Raises:
        CoplError: if there is no label, or φ does not fit the responses.
    """
    _check(data, phi)
    config = (config or GraphConfig()).sized(len(data.labels))
    if warm is not None and _needs_new_projection(phi, config, warm):
        warm = None
    weights = _text_projection(phi, config, warm)
    x = torch.as_tensor(read_text(phi, weights), dtype=torch.float32, device=device)
    graph_data = GraphData(data, x, config, device)
    held_out = _folds(data, config)
    states = None if checkpoint is None else _States(checkpoint, part, _key(data, phi, config, seed, device, warm))
    outputs, logits = [], []
    for member, held in enumerate(held_out):
        generator = torch_generator(seed * 1000 + member)
        with MAKING_MODULES:
            network = CoplGraph(data.n_users, data.n_responses, x.shape[1], config, generator)
        carried = warm is not None and _carry_over(network, warm, member, data)
        training = Member(graph_data, network.to(device), held, seed * 1000 + 500 + member, warm=carried)
        report = partial(_report, progress, config, member, training.steps)
        held_logits, out = _trained(training, report) if states is None else states.trained(training, member, report)
        logits.append(held_logits)
        outputs.append(out)
        weights |= {
            f"{member}.{name}": value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()
        }
    return _state(data, config, outputs, held_out, logits, weights)


def _trained(
    training: Member, report: Report, save: Save | None = None, state: dict[str, Any] | None = None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Train a member: its log-odds of held-out labels, and its ``_outputs``."""
    return training.train(report, save, state), _outputs(training.graph_data, training.network)


@dataclass(frozen=True)
class _States:
    """Stores the training state of each member, and the outputs of a finished one: on a GPU a repeated product may
    differ in the last bit, and a later part that learns from the outputs would be another training."""

    checkpoint: Checkpoint
    part: str
    key: str

    def trained(self, training: Member, member: int, report: Report) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        name = f"{self.part}.{member}"

        def save() -> None:
            if self.checkpoint.due:
                self.checkpoint.write(name, self.key, training.state)

        state = self.checkpoint.read(name, self.key)
        logits, outputs = _trained(training, report, save, state)
        if state is not None and "outputs" in state:
            return state["logits"].numpy(), tuple(part.numpy() for part in state["outputs"])
        self.checkpoint.write(
            name,
            self.key,
            training.state
            | {"logits": torch.from_numpy(logits), "outputs": [torch.as_tensor(part) for part in outputs]},
        )
        return logits, outputs


def _key(
    data: TrainingData, phi: np.ndarray, config: GraphConfig, seed: int, device: str, warm: GraphState | None
) -> str:
    """A key for everything that determines the fit."""
    labels = data.labels
    start = [warm.weights[name] for name in sorted(warm.weights)] if warm is not None else []
    return key_of(
        data.user_ids,
        data.response_ids,
        *(getattr(labels, name) for name in Comparisons.__slots__),
        phi,
        config.stored(),
        seed,
        str(device),
        *start,
    )


def _check(data: TrainingData, phi: np.ndarray) -> None:
    if len(data.labels) == 0:
        raise CoplError("There is no label to learn from: at least one is needed. Label a few pairs first.")
    if phi.ndim != 2 or len(phi) != data.n_responses:
        raise CoplError(
            f"The text embeddings have shape {phi.shape} and there are {data.n_responses} responses: "
            "one row per response is needed."
        )


def _report(
    progress: Progress | None,
    config: GraphConfig,
    member: int,
    steps: int,
    step: int,
    loss: float | None,
    held_out: float | None = None,
) -> None:
    if progress is not None:
        done = member * steps + step, config.architecture.members * steps
        if held_out is not None:
            progress("graph" + HELD_OUT, *done, held_out)
        progress("graph", *done, loss)


def _needs_new_projection(phi: np.ndarray, config: GraphConfig, warm: GraphState) -> bool:
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


def _text_projection(phi: np.ndarray, config: GraphConfig, warm: GraphState | None) -> dict[str, np.ndarray]:
    """The projection of φ: mean (P,), scale (P,), principal directions (P, p), and the number of texts it was fitted
    on.

    The directions are scaled so that a projected text has a root mean square length of 1, and keep their variances: the
    directions in which texts differ most have the largest values.  A warm fit keeps the projection that its weights
    belong to.
    """
    names = ("phi_mean", "phi_scale", "phi_basis", "phi_texts")
    if warm is not None:
        return {name: warm.weights[name] for name in names}
    mean, deviation = phi.mean(0), phi.std(0)
    scale = np.where(deviation > 1e-6, deviation, 1)
    if phi.shape[1] > len(FEATURE_NAMES):  # φ ends with the style features, far fewer than the encoder's coordinates
        scale[-len(FEATURE_NAMES) :] /= config.architecture.feature_weight
    _, size, axes = np.linalg.svd((phi - mean) / scale, full_matrices=False)
    kept = min(config.architecture.text_dim, len(size))
    length = np.sqrt((size[:kept] ** 2).sum() / len(phi)) or 1.0
    found = mean, scale, axes[:kept].T / length, np.array(len(phi))
    return dict(zip(names, (part.astype(np.float32) for part in found), strict=True))


def _folds(data: TrainingData, config: GraphConfig) -> list[np.ndarray]:
    """Held-out rows of each member, about a ``holdout`` share of the labels; each member has another part.

    Labels are held out by user–response edge: all labels of the user with this response, or none.  A single one of them
    would follow from the others (a ≻ c and c ≻ b imply a ≻ b), and a fit stopped on such labels stops too late.  The
    draw depends on ids alone, so that a member holds out the same labels in every later fit, whatever its seed.
    """
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    number = draws("edge", *ids, SALT)  # (N, 2)
    share, members = edge_share_for(config.schedule.holdout), config.architecture.members
    held = [np.flatnonzero(((number - member * share) % 1.0).min(1) < share) for member in range(members)]
    return [rows if len(rows) < len(labels) else rows[1:] for rows in held]


@torch.no_grad()
def _outputs(graph_data: GraphData, network: CoplGraph) -> tuple[np.ndarray, ...]:
    """ê_u, ê_r, b over the graph of all labels, the position biases of users and of all, and the users' inverse
    temperatures, as numpy."""
    parts = (
        *network(graph_data.phi, graph_data.graph.messages()),
        network.user_position_bias,
        network.position_bias,
        network.user_log_inverse_temperature.exp(),
    )
    return tuple(part.detach().cpu().numpy() for part in parts)


@torch.no_grad()
def _carry_over(network: CoplGraph, warm: GraphState, member: int, data: TrainingData) -> bool:
    """Copy the weights of an earlier state: shared ones where shapes match, id rows where the id is known.

    Layers with other starting values (``GraphConfig.sized``) are not copied: their weights have another meaning.  If
    ids can start from the graph (``spectral``), they are not copied either when they belong to such layers or most
    users are
    new: a few old rows would leave the new ones at zero.

    Returns:
        whether ids were copied.
    """
    architecture, before = network.config.architecture, GraphConfig.of(warm.config).architecture
    as_before = (before.message_start, before.mixing) == (architecture.message_start, architecture.mixing)
    rows = {"user": _matched(data.user_ids, warm.user_ids), "response": _matched(data.response_ids, warm.response_ids)}
    labelled = np.bincount(data.labels.user, minlength=data.n_users) > 0
    known = labelled[rows["user"][0]].sum() / labelled.sum()
    ids = not architecture.spectral or (
        as_before
        and known >= MIN_KNOWN
        and warm.weights.get(f"{member}.user_residual", np.empty((0, 0))).shape[1] == architecture.dim
    )
    for name, value in network.state_dict().items():
        stored = warm.weights.get(f"{member}.{name}")
        if stored is None or (name.startswith("convs.") and not as_before):
            continue
        old = torch.as_tensor(stored)
        if old.numel() == value.numel() == 1:  # earlier versions stored a number as a row
            old = old.reshape(value.shape)
        if old.shape[1:] != value.shape[1:]:
            continue
        if name in _BY_USER or name in _BY_RESPONSE:
            if ids or not name.endswith("_residual"):
                here, there = rows["user" if name in _BY_USER else "response"]
                value[here] = old[there]
        elif old.shape == value.shape:
            value.copy_(old)
    return ids


def _matched(ids: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, here, there = np.intersect1d(ids, old, return_indices=True)
    return here, there


def _state(
    data: TrainingData,
    config: GraphConfig,
    outputs: list,
    held_out: list[np.ndarray],
    logits: list[np.ndarray],
    weights: dict[str, np.ndarray],
) -> GraphState:
    labels = data.labels
    stacked = np.concatenate(logits)
    outcome = labels.outcome[np.concatenate(held_out)]
    temperature = temperature_of(stacked, outcome)
    scale = np.float32(config.architecture.members**-0.5)
    users, responses, bias, user_position_bias, position_bias, inverse_temperature = zip(*outputs, strict=True)
    n_labels = np.bincount(labels.user, minlength=data.n_users).astype(np.int64)
    user_vectors = (np.concatenate(users, 1) * scale).astype(np.float32)
    if (n_labels == 0).any() and (n_labels > 0).any():
        user_vectors[n_labels == 0] = user_vectors[n_labels > 0].mean(0)
    return GraphState(
        user_ids=np.asarray(data.user_ids, np.int64),
        user_vectors=user_vectors,
        user_position_bias=np.mean(user_position_bias, 0).astype(np.float32),
        position_bias=float(np.mean(position_bias)),
        user_inverse_temperature=(
            np.mean(inverse_temperature, 0).astype(np.float32) if config.priors.l2_inverse_temperature else None
        ),
        response_ids=np.asarray(data.response_ids, np.int64),
        response_vectors=(np.concatenate(responses, 1) * scale).astype(np.float32),
        response_bias=np.mean(bias, 0).astype(np.float32),
        temperature=temperature,
        labels=labels,
        n_labels=n_labels,
        weights=weights,
        config=config.stored(),
        metrics=measures(stacked / temperature, outcome),
    )
