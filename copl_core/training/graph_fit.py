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

from copl_core.features import FEATURE_NAMES
from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import CoplGraph, runs_over_ranks
from copl_core.preference.shard import ALONE, Shard
from copl_core.preference.state import GraphState, read_text
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.graph_parts import GraphPart, GraphRanks, UserBlocks, divided_state, whole_state, whole_weights
from copl_core.training.graph_trainer import GraphData, Member, Report, Save, edge_share_for, weight_of
from copl_core.training.influence import account_factors
from copl_core.training.losses import MAKING_MODULES, temperature_of, torch_generator
from copl_core.training.metrics import measures
from copl_core.training.progress import HELD_OUT, Progress
from copl_core.training.split import draws
from copl_core.training.warm_start import WarmStart, needs_new_projection

FEWEST_APART = 100  # held-out labels that share no response with the learned ones, for a member to stop on these alone
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
    ranks: GraphRanks | None = None,
) -> GraphState:
    """Fit users and responses of ``data`` from their labels and text embeddings.

    Args:
        phi: (R, P) raw text embeddings, by response row.
        warm: an earlier state; members start from its weights where ids and shapes still match, unless there are so
            many new texts that the text projection is fitted again.
        progress: ``(phase, step, steps, loss)``; an exception from it ends the fit and propagates.
        checkpoint: stores the state of the fit under names that begin with ``part``; after an interruption the same
            call resumes from it and gives the same result as an uninterrupted fit.
        ranks: processes that fit together with this one, each with its own users; the result is the same up to
            rounding.  A graph that cannot be divided (``runs_over_ranks``) is fitted by this process.
    Raises:
        CoplError: if there is no label, or φ does not fit the responses; ``RankLost`` if another process has ended.
    """
    _check(data, phi)
    config = (config or GraphConfig()).sized(len(data.labels))
    if warm is not None and needs_new_projection(phi, config, warm):
        warm = None
    projection = _text_projection(phi, config, warm)
    held_out, apart = _folds(data, config)
    key = "" if checkpoint is None else _key(data, phi, config, seed, device, warm)
    start = WarmStart.of(warm, data) if warm is not None else None
    x = read_text(phi, projection).astype(np.float32, copy=False)
    weight, priors = weight_of(data.labels, config), config.priors
    account = account_factors(data.labels, weight, data.n_users, priors.influence, priors.influence_times)
    whole = GraphPart(data, x, config, seed, held_out, apart, start, checkpoint is not None, account)
    if ranks is None or not runs_over_ranks(config) or not ranks.take(data):
        members = fit_part(whole, Shard(device=device), progress, checkpoint, part, key)
        return _with_nearby(_state(whole, [member.logits for member in members], members, projection), data, phi)
    blocks = UserBlocks.of(data, ranks.n)
    with ranks.fitting(partial(blocks.part, whole)) as (own, shard):
        members = fit_part(own, shard, progress, checkpoint, part, key)
    logits = [blocks.in_order(member.logits, held) for member, held in zip(members, held_out, strict=True)]
    return _with_nearby(_state(whole, logits, members, projection), data, phi)


def _with_nearby(state: GraphState, data: TrainingData, phi: np.ndarray) -> GraphState:
    """The graph of ``published`` reads no texts."""
    if GraphConfig.of(state.config).paper.ids_only:
        return state
    return state.with_nearby(phi, [data.prompts[row] for row in data.response_prompt])


@dataclass(frozen=True)
class FittedMember:
    """A trained member; on the first rank with the rows of all users."""

    logits: np.ndarray  # (H,) log-odds of held-out labels, rank after rank
    outputs: tuple[np.ndarray, ...]  # ê_u, ê_r, b, position biases of users and of all, users' inverse temperatures
    weights: dict[str, np.ndarray]  # by stored name


def fit_part(
    part: GraphPart,
    shard: Shard = ALONE,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    name: str = "graph",
    key: str = "",
) -> list[FittedMember]:
    """Train the members of a graph, or this rank's part of them; only the first rank has a checkpoint."""
    data, config = part.data, part.config
    x = torch.as_tensor(part.x, device=shard.device)
    graph_data = GraphData(data, x, config, shard.device, shard, part.account)
    fitted = []
    for member, (held, apart) in enumerate(zip(part.held_out, part.apart, strict=True)):
        generator = torch_generator(part.seed * 1000 + member)
        with MAKING_MODULES:
            network = CoplGraph(data.n_users, data.n_responses, part.x.shape[1], config, generator, shard)
        carried = part.warm is not None and part.warm.copy_into(network, member, data)
        seed = part.seed * 1000 + 500 + member
        training = Member(graph_data, network.to(shard.device), held, seed, carried, apart)
        report = partial(_report, progress, config, member, training.steps)
        if part.saved:
            logits, outputs = _States(checkpoint, name, key).trained(training, member, report)
        else:
            logits, outputs = _trained(training, report)
        weights = whole_weights(network, graph_data.users, shard)
        fitted.append(
            FittedMember(
                logits, outputs, {stored: value.detach().cpu().numpy().copy() for stored, value in weights.items()}
            )
        )
    return fitted


def _trained(
    training: Member, report: Report, save: Save | None = None, state: dict[str, Any] | None = None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Train a member: its log-odds of held-out labels, and its ``_outputs``."""
    logits, shard = torch.from_numpy(training.train(report, save, state)).to(training.shard.device), training.shard
    return shard.collect(logits, shard.rows(len(logits))).cpu().numpy(), _outputs(training)


@dataclass(frozen=True)
class _States:
    """Stores the training state of each member, and the outputs of a finished one: on a GPU a repeated product may
    differ in the last bit, and a later part that learns from the outputs would be another training.

    The first rank stores the state of all; the others have no ``checkpoint``.
    """

    checkpoint: Checkpoint | None
    part: str
    key: str

    def trained(self, training: Member, member: int, report: Report) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        name = f"{self.part}.{member}"

        def save() -> None:
            if not training.shard.alone and training.step % training.config.schedule.check_every:
                return  # a message to all ranks at every step would cost more than these steps
            if training.shard.agree(self.checkpoint is not None and self.checkpoint.due):
                self._write(name, whole_state(training))

        found = self.checkpoint.read(name, self.key) if self.checkpoint is not None else None
        logits, outputs = _trained(training, report, save, divided_state(found, training))
        if training.shard.agree(found is not None and "outputs" in found):
            done = found or {"logits": torch.from_numpy(logits), "outputs": ()}  # the first rank has found them
            return done["logits"].numpy(), tuple(part.numpy() for part in done["outputs"])
        outcome = {"logits": torch.from_numpy(logits), "outputs": [torch.as_tensor(part) for part in outputs]}
        self._write(name, whole_state(training) | outcome)
        return logits, outputs

    def _write(self, name: str, state: dict[str, Any]) -> None:
        if self.checkpoint is not None:
            self.checkpoint.write(name, self.key, state)


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
        "held-out labels share no response with what is learned",  # a state of earlier versions has stopped on others
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


def _folds(data: TrainingData, config: GraphConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Held-out rows of each member, and rows that a member neither learns from nor is measured on; each member has
    another part of the labels, and learns from all but a ``holdout`` share.

    A member learns nothing about some user–response edges: labels with one of them leave.  The draw depends on ids
    alone, so that a member never learns from them in any later fit, whatever its seed.  Of these labels it is measured
    on those that share no response with what it learns from the same user: the others follow from it (a ≻ c and c ≻ b
    imply a ≻ b), and a fit stopped on such labels stops too late.  Where users label every two of a list, almost all
    do; with less than ``FEWEST_APART`` others, and less than a quarter, a member is measured on all that leave.
    """
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    number = draws("edge", *ids, SALT)  # (N, 2)
    share, members = edge_share_for(config.schedule.holdout), config.architecture.members
    edges = labels.user * data.n_responses + np.stack([labels.left, labels.right])
    unique, edges = np.unique(edges, return_inverse=True)
    edges = edges.reshape(2, -1)
    held_out, apart = [], []
    for member in range(members):
        rows = np.flatnonzero(((number - member * share) % 1.0).min(1) < share)
        rows = rows if len(rows) < len(labels) else rows[1:]
        known = np.zeros(len(unique), bool)
        known[np.delete(edges, rows, axis=1)] = True
        clean = ~known[edges[:, rows]].any(0)
        enough = clean.sum() >= min(FEWEST_APART, len(rows) / 4)
        held_out.append(rows[clean] if enough else rows)
        apart.append(rows[~clean] if enough else rows[:0])
    return held_out, apart


@torch.no_grad()
def _outputs(training: Member) -> tuple[np.ndarray, ...]:
    """ê_u, ê_r, b over the graph of all labels, the position biases of users and of all, and the users' inverse
    temperatures, as numpy; on the first rank of all users."""
    graph_data, network, shard = training.graph_data, training.network, training.shard
    users, responses, bias = network(graph_data.phi, graph_data.graph.messages())
    users, position_bias, inverse_temperature = (
        shard.collect(own, graph_data.users)
        for own in (users, network.user_position_bias, network.user_log_inverse_temperature.exp())
    )
    parts = (users, responses, bias, position_bias, network.position_bias, inverse_temperature)
    return tuple(part.detach().cpu().numpy() for part in parts)


def _state(
    whole: GraphPart, logits: list[np.ndarray], members: list[FittedMember], projection: dict[str, np.ndarray]
) -> GraphState:
    data, config, labels = whole.data, whole.config, whole.data.labels
    weights = projection | {
        f"{number}.{name}": value for number, member in enumerate(members) for name, value in member.weights.items()
    }
    stacked = np.concatenate(logits)
    held_out = np.concatenate(whole.held_out)
    outcome, account = labels.outcome[held_out], whole.account
    temperature = temperature_of(stacked, outcome, None if account is None else account[labels.user[held_out]])
    scale = np.float32(config.architecture.members**-0.5)
    users, responses, bias, user_position_bias, position_bias, inverse_temperature = zip(
        *(member.outputs for member in members), strict=True
    )
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
