"""Fit the preference graph: an ensemble of small networks, each stopped on labels of its own that it never saw.

A member sees a different part of the labels held out (folds of one shuffle), so together they use every label, and the
held-out figures are told over all folds.  At each step a random ``leave_out`` share of the labels leaves the graph and
only those are asked, again by meeting: message passing over the very labels the loss asks for gives the answer away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from copl_core.features import FEATURE_NAMES
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import PreferenceGraph
from copl_core.preference.state import GraphConfig, GraphState, read_text
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.losses import bradley_terry, measures, temperature_of, torch_generator
from copl_core.training.split import uniform

Report = Callable[[str, int, int, float | None], None]
_BY_USER = ("user_residual", "user_side")
_BY_RESPONSE = ("response_residual", "response_bias")


def fit_graph(data: TrainingData, phi: np.ndarray, config: GraphConfig | None = None, *, seed: int,
              device: str = "cpu", warm: GraphState | None = None, progress: Report | None = None) -> GraphState:
    """Fit users and responses of ``data`` from their labels and text embeddings.

    Args:
        phi: (R, P) raw text embeddings, by response row.
        warm: an earlier state; members start from its weights wherever ids and shapes still fit.
        progress: ``(phase, step, steps, loss)``; whatever it raises ends the fit and is passed on.
    Raises:
        CoplError: if there is no label, or φ does not fit the responses.
    """
    config = config or GraphConfig()
    _check(data, phi)
    weights = _reading(phi, config, warm)
    x = torch.as_tensor(read_text(phi, weights), dtype=torch.float32, device=device)
    fit = _Fit(data, x, config, device)
    held_out = _folds(data, config, seed)
    members, logits = [], []
    for member, held in enumerate(held_out):
        network = CoplGraph(data.n_users, data.n_responses, x.shape[1], config, torch_generator(seed * 1000 + member))
        if warm is not None:
            _carry_over(network, warm, member, data)
        network = network.to(device)
        generator = torch_generator(seed * 1000 + 500 + member, device)
        logits.append(fit.member(network, held, generator, lambda step, loss, member=member: _tell(
            progress, config, member, step, loss), warm=warm is not None))
        members.append(fit.embed(network))
        weights |= {f"{member}.{name}": value.detach().cpu().numpy().copy()
                    for name, value in network.state_dict().items()}
    return _state(data, config, members, held_out, logits, weights)


def _check(data: TrainingData, phi: np.ndarray) -> None:
    if len(data.labels) == 0:
        raise CoplError("There is no label to learn from: at least one is needed. Label a few pairs first.")
    if phi.ndim != 2 or len(phi) != data.n_responses:
        raise CoplError(f"Text embeddings of shape {phi.shape} came with {data.n_responses} responses: "
                        "one row a response is needed.")


def _tell(progress: Report | None, config: GraphConfig, member: int, step: int, loss: float | None) -> None:
    if progress is not None:
        progress("graph", member * config.max_steps + step, config.members * config.max_steps, loss)


def _reading(phi: np.ndarray, config: GraphConfig, warm: GraphState | None) -> dict[str, np.ndarray]:
    """How φ is read: mean (P,), scale (P,) and principal directions (P, p), sized so that a text has length 1 on
    average.

    Directions keep their variance: what most texts differ in may speak loudest.  A warm fit keeps the reading its
    weights were made for.
    """
    names = ("phi_mean", "phi_scale", "phi_basis")
    if warm is not None and warm.weights["phi_mean"].shape == (phi.shape[1],):
        return {name: warm.weights[name] for name in names}
    mean, spread = phi.mean(0), phi.std(0)
    scale = np.where(spread > 1e-6, spread, 1)
    if phi.shape[1] > len(FEATURE_NAMES):  # φ ends with the style features, few beside the encoder's coordinates
        scale[-len(FEATURE_NAMES):] /= config.feature_weight
    _, size, axes = np.linalg.svd((phi - mean) / scale, full_matrices=False)
    kept = min(config.text_dim, len(size))
    length = np.sqrt((size[:kept] ** 2).sum() / len(phi)) or 1.0
    return dict(zip(names, (part.astype(np.float32) for part in (mean, scale, axes[:kept].T / length)), strict=True))


def _folds(data: TrainingData, config: GraphConfig, seed: int) -> list[np.ndarray]:
    """Held-out rows of each member, about ``holdout`` of the labels; members take turns.

    Labels are held out by meeting of a user and a response: all of the user's labels about it, or none.  One of them
    alone would be told by the others (a ≻ c and c ≻ b say a ≻ b), and a fit stopped on such labels stops too late.  The
    draw reads ids alone, so that what a member holds out it holds out in every later fit.
    """
    labels = data.labels
    users, salt = data.user_ids[labels.user], np.full(len(labels), seed)
    place = np.stack([uniform(salt, users, data.response_ids[side]) for side in (labels.left, labels.right)])
    share = _meetings_for(config.holdout)
    held = [np.flatnonzero(((place - member * share) % 1.0).min(0) < share) for member in range(config.members)]
    return [rows if len(rows) < len(labels) else rows[1:] for rows in held]


def _meetings_for(share: float) -> float:
    """The share of meetings that touches this share of labels, each of which is about two."""
    return 1 - (1 - share) ** 0.5


@dataclass
class _Fit:
    """What the members of one fit share."""

    data: TrainingData
    phi: Tensor  # (R, p), as the graph reads it
    config: GraphConfig
    device: str

    def __post_init__(self) -> None:
        data, labels = self.data, self.data.labels
        self.graph = PreferenceGraph.build(labels, data.n_users, data.n_responses, self.device)
        self.user, self.left, self.right = (torch.as_tensor(column, device=self.device)
                                            for column in (labels.user, labels.left, labels.right))
        met = np.stack([labels.user * data.n_responses + labels.left, labels.user * data.n_responses + labels.right], 1)
        met = np.unique(met, return_inverse=True)[1].reshape(-1, 2)
        self.n_meetings, self.meetings = int(met.max()) + 1, torch.as_tensor(met, device=self.device)
        self.outcome = torch.as_tensor(labels.outcome, device=self.device)
        weight = np.where(labels.decided, labels.strength, self.config.tie_weight * labels.strength)
        self.weight = torch.as_tensor(weight / weight.mean(), dtype=torch.float32, device=self.device)

    def logits(self, network: CoplGraph, out: tuple[Tensor, Tensor, Tensor], rows: Tensor) -> Tensor:
        """Log-odds of left, side nuisance included, for label rows (B,)."""
        users, responses, bias = out
        user, left, right = self.user[rows], self.left[rows], self.right[rows]
        margin = (users[user] * (responses[left] - responses[right])).sum(-1) + bias[left] - bias[right]
        return margin + network.side + network.user_side[user]

    def embed(self, network: CoplGraph) -> tuple[np.ndarray, ...]:
        """ê_u, ê_r, b over the graph of all labels, and the side nuisances, as numpy."""
        with torch.no_grad():
            out = network(self.phi, self.graph.messages())
        return tuple(part.detach().cpu().numpy() for part in (*out, network.user_side, network.side))

    def member(self, network: CoplGraph, held: np.ndarray, generator: torch.Generator,
               tell: Callable[[int, float | None], None], warm: bool = False) -> np.ndarray:
        """Train one network in place; returns its log-odds (H,) on the held-out rows, which it never saw."""
        config, n = self.config, len(self.user)
        seen = torch.ones(n, dtype=torch.bool, device=self.device)
        held_rows = torch.as_tensor(held, device=self.device)
        seen[held_rows] = False
        seen_messages = self.graph.messages(seen)
        optimiser = _optimiser(network, config)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.max_steps, eta_min=0.02 * config.lr)
        best, best_step, kept = np.inf, 0, _copy(network)
        if warm and len(held):  # what was learned before may be hard to better
            best = self._held_loss(network, seen_messages, held_rows)
        for step in range(1, config.max_steps + 1):
            loss = self._step(network, seen, seen_messages, optimiser, generator)
            schedule.step()
            if step % config.check_every == 0 and len(held):
                score = self._held_loss(network, seen_messages, held_rows)
                if score < best:
                    best, best_step, kept = score, step, _copy(network)
                tell(step, loss)
                if step - best_step >= config.patience:
                    break
        if len(held):
            network.load_state_dict(kept)
        tell(config.max_steps, loss)
        with torch.no_grad():
            return self.logits(network, network(self.phi, seen_messages), held_rows).cpu().numpy()

    def _step(self, network, seen: Tensor, seen_messages, optimiser, generator: torch.Generator) -> float:
        config = self.config
        asked, messages = seen, seen_messages
        if config.leave_out > 0:
            drawn = torch.rand(self.n_meetings, generator=generator, device=self.device)
            left_out = (drawn < _meetings_for(config.leave_out))[self.meetings].any(1)
            if (left_out & seen).any():
                asked, messages = left_out & seen, self.graph.messages(seen & ~left_out)
        keep = self._kept(self.data.n_responses, config.id_dropout, generator)
        keep_user = self._kept(self.data.n_users, config.user_dropout, generator)
        rows = asked.nonzero()[:, 0]
        logits = self.logits(network, network(self.phi, messages, keep, keep_user), rows)
        loss = bradley_terry(logits, self.outcome[rows], config.smoothing)
        loss = (loss * self.weight[rows]).mean() + penalty(network, config) / len(self.user)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    def _kept(self, n: int, dropped: float, generator: torch.Generator) -> Tensor | None:
        """Mask (n, 1) of rows that keep their id; None, without a draw, where all do."""
        if dropped == 0:
            return None
        return (torch.rand(n, 1, generator=generator, device=self.device) >= dropped).float()

    def _held_loss(self, network, messages, rows: Tensor) -> float:
        with torch.no_grad():
            logits = self.logits(network, network(self.phi, messages), rows)
            return float((bradley_terry(logits, self.outcome[rows]) * self.weight[rows]).mean())


def penalty(network: CoplGraph, config: GraphConfig) -> Tensor:
    """Minus the log of the Gaussian priors, summed; the caller divides by the number of labels."""
    ids = _squares(network.user_residual, network.response_residual)
    liked = _squares(network.response_bias, network.text_bias, network.bias)
    text = _squares(network.text.weight)
    return 0.5 * (config.l2 * ids + config.l2_text * text + config.l2_bias * liked
                  + config.l2_layer * network.layer_drift() + config.side_l2 * _squares(network.user_side))


def _squares(*weights: Tensor) -> Tensor:
    return sum(weight.square().sum() for weight in weights)


def _optimiser(network: CoplGraph, config: GraphConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=config.lr)


def _copy(network: CoplGraph) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def _carry_over(network: CoplGraph, warm: GraphState, member: int, data: TrainingData) -> None:
    """Start from an earlier state: shared weights where shapes agree, id rows where the id is known."""
    rows = {"user": _matched(data.user_ids, warm.user_ids), "response": _matched(data.response_ids, warm.response_ids)}
    for name, value in network.state_dict().items():
        old = warm.weights.get(f"{member}.{name}")
        if old is None or old.shape[1:] != tuple(value.shape[1:]):
            continue
        old = torch.as_tensor(old)
        if name in _BY_USER or name in _BY_RESPONSE:
            here, there = rows["user" if name in _BY_USER else "response"]
            value[here] = old[there]
        elif old.shape == value.shape:
            value.copy_(old)


def _matched(ids: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, here, there = np.intersect1d(ids, old, return_indices=True)
    return here, there


def _state(data: TrainingData, config: GraphConfig, members: list, held_out: list[np.ndarray],
           logits: list[np.ndarray], weights: dict[str, np.ndarray]) -> GraphState:
    labels = data.labels
    stacked = np.concatenate(logits)
    outcome = labels.outcome[np.concatenate(held_out)]
    temperature = temperature_of(stacked, outcome)
    scale = np.float32(config.members ** -0.5)
    users, responses, bias, user_side, side = zip(*members, strict=True)
    n_labels = np.bincount(labels.user, minlength=data.n_users).astype(np.int64)
    user_vectors = (np.concatenate(users, 1) * scale).astype(np.float32)
    if (n_labels == 0).any() and (n_labels > 0).any():
        user_vectors[n_labels == 0] = user_vectors[n_labels > 0].mean(0)
    return GraphState(
        user_ids=np.asarray(data.user_ids, np.int64), user_vectors=user_vectors,
        user_side=np.mean(user_side, 0).astype(np.float32), side=float(np.mean(side)),
        response_ids=np.asarray(data.response_ids, np.int64),
        response_vectors=(np.concatenate(responses, 1) * scale).astype(np.float32),
        response_bias=np.mean(bias, 0).astype(np.float32), temperature=temperature, labels=labels, n_labels=n_labels,
        weights=weights, config=asdict(config), metrics=measures(stacked / temperature, outcome))


def sided_margins(state: GraphState, labels: Comparisons) -> np.ndarray:
    """Calibrated log-odds (N,) with the side nuisance: what a label by a known user is expected to say."""
    return state.margins(labels) + (state.side + state.user_side[labels.user]) / state.temperature
