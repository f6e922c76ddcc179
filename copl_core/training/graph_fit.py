"""Fit the preference graph: an ensemble of small networks, each stopped on labels of its own that it never saw.

A member sees a different part of the labels held out (folds of one shuffle), so together they use every label, and the
held-out figures are told over all folds.  At each step a random ``leave_out`` share of the labels leaves the graph and
only those are asked, again by meeting: message passing over the very labels the loss asks for gives the answer away.
The published schedule (``batch``) asks a batch at a time of labels that stay in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from copl_core.features import FEATURE_NAMES
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import AskedPairs, Messages, PreferenceGraph, where
from copl_core.preference.spectral import leading
from copl_core.preference.state import GraphConfig, GraphState, read_text
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.losses import (
    bradley_terry,
    flip_rate,
    measures,
    preference_loss,
    temperature_of,
    torch_generator,
)
from copl_core.training.runlog import HELD_OUT
from copl_core.training.split import uniform

Report = Callable[[str, int, int, float | None], None]
_BY_USER = ("user_residual", "user_side", "user_firmness")
_BY_RESPONSE = ("response_residual", "response_bias")
KNOWN = 1 / 3  # of the people with labels, who have to be known for a large graph to start from their ids


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
    _check(data, phi)
    config = (config or GraphConfig()).sized(len(data.labels))
    weights = _reading(phi, config, warm)
    x = torch.as_tensor(read_text(phi, weights), dtype=torch.float32, device=device)
    fit = _Fit(data, x, config, device)
    held_out = _folds(data, config, seed)
    members, logits = [], []
    for member, held in enumerate(held_out):
        network = CoplGraph(data.n_users, data.n_responses, x.shape[1], config, torch_generator(seed * 1000 + member))
        carried = warm is not None and _carry_over(network, warm, member, data)
        network = network.to(device)
        generator = torch_generator(seed * 1000 + 500 + member, device)
        steps = _steps(config, len(data.labels) - len(held))
        tell = partial(_tell, progress, config, member, steps)
        logits.append(fit.member(network, held, generator, tell, warm=carried))
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


def _tell(progress: Report | None, config: GraphConfig, member: int, steps: int, step: int, loss: float | None,
          held_out: float | None = None) -> None:
    if progress is not None:
        where = member * steps + step, config.members * steps
        if held_out is not None:
            progress("graph" + HELD_OUT, *where, held_out)
        progress("graph", *where, loss)


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


@dataclass(frozen=True)
class _Asked:
    """Labels that are asked, gathered: rows (B,) of users, left and right, what was said and how much it counts."""

    user: Tensor
    left: Tensor
    right: Tensor
    outcome: Tensor
    weight: Tensor
    pairs: AskedPairs | None


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
        self.user, self.left, self.right = (torch.as_tensor(column, dtype=torch.int32, device=self.device)
                                            for column in (labels.user, labels.left, labels.right))
        self.pairs = None if self.config.batch else AskedPairs.build(self.user, self.left, self.right, data.n_users,
                                                                     data.n_responses)
        met = np.stack([labels.user * data.n_responses + labels.left, labels.user * data.n_responses + labels.right])
        met = np.unique(met, return_inverse=True)[1].reshape(2, -1)
        self.n_meetings = int(met.max()) + 1
        self.meetings = torch.as_tensor(met, dtype=torch.int32, device=self.device)  # (2, N)
        self.outcome = torch.as_tensor(labels.outcome, device=self.device)
        weight = np.where(labels.decided, labels.strength, self.config.tie_weight * labels.strength)
        self.weight = torch.as_tensor(weight / weight.mean(), dtype=torch.float32, device=self.device)
        self.flip = 0.0
        if self.config.loss != "bt":
            self.flip = flip_rate(labels) if self.config.flip is None else self.config.flip

    def asked(self, rows: Tensor) -> _Asked:
        """The labels of rows (B,), gathered."""
        return _Asked(*(column.index_select(0, rows) for column in
                        (self.user, self.left, self.right, self.outcome, self.weight)),
                      None if self.pairs is None else self.pairs.taken(rows))

    def logits(self, network: CoplGraph, out: tuple[Tensor, Tensor, Tensor], asked: _Asked) -> Tensor:
        """Log-odds (B,) of left, side nuisance included."""
        users, responses, bias = out
        if asked.pairs is not None:
            margin = asked.pairs.margins(users, responses)
        else:
            apart = responses.index_select(0, asked.left) - responses.index_select(0, asked.right)
            margin = (users.index_select(0, asked.user) * apart).sum(-1)
        if self.config.ids_only:
            return margin
        margin = margin + bias.index_select(0, asked.left) - bias.index_select(0, asked.right)
        if self.config.firmness_l2:
            margin = margin * network.user_firmness.exp().index_select(0, asked.user)
        return margin + network.side + network.user_side.index_select(0, asked.user)

    def embed(self, network: CoplGraph) -> tuple[np.ndarray, ...]:
        """ê_u, ê_r, b over the graph of all labels, and the side nuisances, as numpy."""
        with torch.no_grad():
            out = network(self.phi, self.graph.messages())
        return tuple(part.detach().cpu().numpy() for part in (*out, network.user_side, network.side))

    def member(self, network: CoplGraph, held: np.ndarray, generator: torch.Generator,
               tell: Callable[..., None], warm: bool = False) -> np.ndarray:
        """Train one network in place; returns its log-odds (H,) on the held-out rows, which it never saw."""
        config, n = self.config, len(self.user)
        seen = torch.ones(n, dtype=torch.bool, device=self.device)
        held_rows = torch.as_tensor(held, device=self.device)
        seen[held_rows] = False
        whole, kept_back = self.graph.messages(seen), self.asked(held_rows)
        if config.spectral and not (warm or config.ids_only):
            network.start_ids(*leading(whole, min(config.spectral, config.dim), generator))
        optimiser = _optimiser(network, config)
        steps = _steps(config, int(seen.sum()))
        schedule = _schedule(optimiser, config, steps)
        batches = self._batches(seen, generator) if config.batch else None
        best, best_step, kept = np.inf, 0, _copy(network)
        if warm and len(held):  # what was learned before may be hard to better
            best = self._held_loss(network, whole, kept_back)
        for step in range(1, steps + 1):
            loss = self._step(network, seen, whole, optimiser, generator) if batches is None \
                else self._batch_step(network, next(batches), seen, optimiser, generator)
            schedule.step()
            if step % config.check_every == 0 and len(held):
                score = self._held_loss(network, whole, kept_back)
                if score < best:
                    best, best_step, kept = score, step, _copy(network)
                tell(step, loss, score)
                if step - best_step >= config.patience:
                    break
        if len(held):
            network.load_state_dict(kept)
        tell(steps, loss)
        with torch.no_grad():
            return self.logits(network, network(self.phi, whole), kept_back).cpu().numpy()

    def _step(self, network, seen: Tensor, whole: Messages, optimiser, generator: torch.Generator) -> float:
        """One step on the labels that leave the graph for it, all at once; ``whole`` are the messages of all labels of
        the mask ``seen`` (N,), which stand where none leaves."""
        config, left_out, messages = self.config, seen, whole
        if config.leave_out > 0:
            drawn = torch.rand(self.n_meetings, generator=generator, device=self.device)
            drawn = drawn < _meetings_for(config.leave_out)
            left_out = (drawn.index_select(0, self.meetings[0]) | drawn.index_select(0, self.meetings[1])) & seen
            if left_out.any():
                messages = self.graph.messages(seen & ~left_out, config.edge_dropout, generator)
            else:
                left_out = seen
        asked = self.asked(where(left_out))
        keep = self._kept(self.data.n_responses, config.id_dropout, generator)
        keep_user = self._kept(self.data.n_users, config.user_dropout, generator)
        logits = self.logits(network, network(self.phi, messages, keep, keep_user), asked)
        loss = preference_loss(logits, asked.outcome, config.loss, self.flip, config.smoothing)
        loss = (loss * asked.weight).mean() + penalty(network, config) / len(self.user)
        return _move(optimiser, loss)

    def _batch_step(self, network, rows: Tensor, seen: Tensor, optimiser, generator: torch.Generator) -> float:
        """One step of the published schedule: a propagation over the whole graph for one batch of its labels."""
        config, asked = self.config, self.asked(rows)
        messages = [self.graph.messages(seen, config.edge_dropout, generator) for _ in range(config.layers)]
        out = network(self.phi, messages)
        loss = preference_loss(self.logits(network, out, asked), asked.outcome, config.loss, self.flip,
                               config.smoothing)
        users, responses, _ = out
        met = (users.index_select(0, asked.user), responses.index_select(0, asked.left),
               responses.index_select(0, asked.right))
        loss = (loss * asked.weight).mean() + config.l2_asked * _squares(*met) \
            + penalty(network, config) / len(self.user)
        return _move(optimiser, loss)

    def _batches(self, seen: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        rows = seen.nonzero()[:, 0]
        while True:
            order = torch.randperm(len(rows), generator=generator, device=self.device)
            yield from rows[order].split(self.config.batch)

    def _kept(self, n: int, dropped: float, generator: torch.Generator) -> Tensor | None:
        """Mask (n, 1) of rows that keep their id; None, without a draw, where all do."""
        if dropped == 0:
            return None
        return (torch.rand(n, 1, generator=generator, device=self.device) >= dropped).float()

    def _held_loss(self, network, messages: Messages, held: _Asked) -> float:
        with torch.no_grad():
            logits = self.logits(network, network(self.phi, messages), held)
            return float((bradley_terry(logits, held.outcome) * held.weight).mean())


def _move(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


def penalty(network: CoplGraph, config: GraphConfig) -> Tensor:
    """Minus the log of the Gaussian priors, summed; the caller divides by the number of labels."""
    ids = _squares(network.user_residual, network.response_residual)
    liked = _squares(network.response_bias, network.text_bias, network.bias)
    terms = ((config.l2, ids), (config.l2_text, _squares(network.text.weight)), (config.l2_bias, liked),
             (config.l2_layer, network.layer_drift()), (config.side_l2, _squares(network.user_side)),
             (config.firmness_l2, _squares(network.user_firmness)))
    return 0.5 * sum(precision * squares for precision, squares in terms)


def _squares(*weights: Tensor) -> Tensor:
    return sum(_Square.apply(weight) for weight in weights)


class _Square(torch.autograd.Function):
    """Sum of squares; a dot product with itself would hand back two gradients, to be added up."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.dot(weight.flatten(), weight.flatten())

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.saved_tensors[0] * (2 * grad)


def _optimiser(network: CoplGraph, config: GraphConfig) -> torch.optim.Optimizer:
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _steps(config: GraphConfig, n_seen: int) -> int:
    return config.epochs * -(-n_seen // config.batch) if config.batch else config.max_steps


def _schedule(optimiser: torch.optim.Optimizer, config: GraphConfig, steps: int):
    """A linear rise over ``warmup`` of the steps, then a cosine to a fiftieth."""
    rise = int(config.warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return step / rise
        return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _copy(network: CoplGraph) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def _carry_over(network: CoplGraph, warm: GraphState, member: int, data: TrainingData) -> bool:
    """Start from an earlier state: shared weights where shapes agree, id rows where the id is known; returns whether
    ids were carried over.

    Layers that started elsewhere (``GraphConfig.sized``) are not carried over: their weights mean something else.  Nor
    are ids that could start from the graph, where they were learned beside such layers or most people are new: what few
    old rows say would leave the new ones at nought.
    """
    config = network.config
    as_before = GraphConfig.of(warm.config).message_start == config.message_start
    rows = {"user": _matched(data.user_ids, warm.user_ids), "response": _matched(data.response_ids, warm.response_ids)}
    labelled = np.bincount(data.labels.user, minlength=data.n_users) > 0
    known = labelled[rows["user"][0]].sum() / labelled.sum()
    ids = not config.spectral or (as_before and known >= KNOWN and warm.weights.get(
        f"{member}.user_residual", np.empty((0, 0))).shape[1] == config.dim)
    for name, value in network.state_dict().items():
        old = warm.weights.get(f"{member}.{name}")
        if old is None or old.shape[1:] != tuple(value.shape[1:]) or (name.startswith("convs.") and not as_before):
            continue
        old = torch.as_tensor(old)
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
