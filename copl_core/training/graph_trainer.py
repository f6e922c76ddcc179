"""How one member of a preference graph is trained: its steps, what it is asked at each, and when it stops.

At each step a random ``leave_out`` share of the labels leaves the graph and only those are asked, by meeting: message
passing over the very labels the loss asks for gives the answer away.  The published schedule (``batch``) asks a batch
at a time of labels that stay in the graph.  A member stops on labels of its own that it never saw.  Where these are
predicted worse than before, ids have begun to learn labels by heart: training goes back to its best and holds ids more
firmly, so that one setting serves labels with few slips and with many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import AskedPairs, Messages, PreferenceGraph, where
from copl_core.preference.spectral import leading
from copl_core.preference.state import GraphConfig
from copl_core.records import CoplError, TrainingData
from copl_core.training.losses import bradley_terry, flip_rate, preference_loss, torch_generator

Tell = Callable[..., None]  # step, loss, and the held-out loss where it was measured
Save = Callable[[], None]  # may keep ``Member.state``, which is made only then


def meetings_for(share: float) -> float:
    """The share of meetings that touches this share of labels, each of which is about two."""
    return 1 - (1 - share) ** 0.5


@dataclass(frozen=True)
class LabelBatch:
    """Labels that are asked, gathered: rows (B,) of users, left and right, what was said and how much it counts."""

    user: Tensor
    left: Tensor
    right: Tensor
    outcome: Tensor
    weight: Tensor
    pairs: AskedPairs | None


@dataclass
class GraphData:
    """What the members of one fit share: the labels, the graph they make, and φ as the graph reads it."""

    data: TrainingData
    phi: Tensor  # (R, p)
    config: GraphConfig
    device: str

    def __post_init__(self) -> None:
        data, labels = self.data, self.data.labels
        self.graph = PreferenceGraph.build(labels, data.n_users, data.n_responses, self.device)
        self.user, self.left, self.right = (
            torch.as_tensor(column, dtype=torch.int32, device=self.device)
            for column in (labels.user, labels.left, labels.right)
        )
        self.pairs = (
            None
            if self.config.batch
            else AskedPairs.build(self.user, self.left, self.right, data.n_users, data.n_responses)
        )
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

    def asked(self, rows: Tensor) -> LabelBatch:
        """The labels of rows (B,), gathered."""
        return LabelBatch(
            *(column.index_select(0, rows) for column in (self.user, self.left, self.right, self.outcome, self.weight)),
            None if self.pairs is None else self.pairs.taken(rows),
        )

    def logits(self, network: CoplGraph, out: tuple[Tensor, Tensor, Tensor], asked: LabelBatch) -> Tensor:
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

    def loss(self, logits: Tensor, asked: LabelBatch) -> Tensor:
        """What training makes small, before any prior."""
        each = preference_loss(logits, asked.outcome, self.config.loss, self.flip, self.config.smoothing)
        return (each * asked.weight).mean()

    def draw(self, seen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Masks (N,) of the labels that stay in the graph and of those that leave it and are asked; where none leaves,
        all of ``seen`` (N,) are both."""
        drawn = torch.rand(self.n_meetings, generator=generator, device=self.device)
        drawn = drawn < meetings_for(self.config.leave_out)
        left_out = (drawn.index_select(0, self.meetings[0]) | drawn.index_select(0, self.meetings[1])) & seen
        return (seen & ~left_out, left_out) if left_out.any() else (seen, seen)


class Member:
    """One network in training.

    Args:
        held: rows (H,) that it is stopped on and never sees.
        warm: whether the network's ids were learned before, and are a start worth keeping.
    """

    def __init__(self, lesson: GraphData, network: CoplGraph, held: np.ndarray, seed: int, warm: bool = False) -> None:
        self.lesson, self.network, self.config, self.seed, self.warm = lesson, network, lesson.config, seed, warm
        self.generator = torch_generator(seed, lesson.device)
        rows = torch.as_tensor(held, device=lesson.device)
        self.seen = torch.ones(len(lesson.user), dtype=torch.bool, device=lesson.device)
        self.seen[rows] = False
        self.whole, self.held = self._seen_graph.messages(), lesson.asked(rows)
        if not self.config.edge_dropout:
            del self._seen_graph  # of a million people it is most of a GiB
        self.draws: list[tuple[list[Messages], LabelBatch]] = []
        self.order, self.place = torch.empty(0, dtype=torch.long), 0  # of a pass over the labels, with ``batch``
        self.optimiser = optimiser_of(network, self.config)
        self.steps = steps_of(self.config, len(lesson.user) - len(held))
        self.step, self.firm, self.loss = 0, 1.0, math.nan
        self.best, self.best_step, self.worse, self.kept = math.inf, 0, 0, _copy(network)

    def train(self, tell: Tell, save: Save | None = None, state: dict | None = None) -> np.ndarray:
        """Train in place, from ``state`` on if there is one; returns log-odds (H,) on the held-out rows.

        ``save`` is called after every step.
        """
        if state is None:
            self._begin()
        else:
            self._take(state)
        while not self._ended():
            self.loss = self.take_step()
            if self.step % self.config.check_every == 0 and len(self.held.user):
                score = self._held_loss()
                self._judge(score)
                tell(self.step, self.loss, score)
            if save is not None:
                save()
        if len(self.held.user):
            self.network.load_state_dict(self.kept)
        self.draws.clear()
        tell(self.steps, self.loss)
        with torch.no_grad():
            return self._held_logits().cpu().numpy()

    def _begin(self) -> None:
        config = self.config
        if config.spectral and not (self.warm or config.ids_only):
            self.network.start_ids(*leading(self.whole, min(config.spectral, config.dim), self.generator))
            self.kept = _copy(self.network)
        if self.warm and len(self.held.user):  # what was learned before may be hard to better
            self.best = self._held_loss()

    def _ended(self) -> bool:
        return self.step >= self.steps or (
            len(self.held.user) > 0 and self.step - self.best_step >= self.config.patience
        )

    def _judge(self, score: float) -> None:
        """Keep what predicts best; after looks without gain go back to it, ids held more firmly from there on."""
        if not math.isfinite(score) and self.best == math.inf:
            raise CoplError(
                f"The graph's training broke down: its held-out loss was {score} after {self.step} steps. "
                "A smaller learning rate, or another loss, is needed."
            )
        if score < self.best:
            self.best, self.best_step, self.worse, self.kept = score, self.step, 0, _copy(self.network)
            return
        self.worse += 1
        if self.config.firmer > 1 and self.worse >= self.config.firm_after:
            self.worse, self.firm = 0, self.firm * self.config.firmer
            self.network.load_state_dict(self.kept)

    def take_step(self) -> float:
        """One step of the optimiser; returns the loss."""
        rate = self.config.lr * rate_at(self.step, self.config, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._batch_loss() if self.config.batch else self._left_out_loss()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _left_out_loss(self) -> Tensor:
        """Of the labels that leave the graph for this step, all at once."""
        lesson, config, network = self.lesson, self.config, self.network
        messages, asked = self._drawn()
        keep = self._keeping(lesson.data.n_responses, config.id_dropout)
        keep_user = self._keeping(lesson.data.n_users, config.user_dropout)
        logits = lesson.logits(network, network(lesson.phi, messages, keep, keep_user), asked)
        return lesson.loss(logits, asked) + penalty(network, config, self.firm) / len(lesson.user)

    def _drawn(self) -> tuple[list[Messages], LabelBatch]:
        """Messages by layer and what is asked; with ``draws`` the same few draws take turns, each drawn by its own
        seed."""
        number, generator = self.step, self.generator
        if self.config.draws:
            number = self.step % self.config.draws
            if number < len(self.draws):
                return self.draws[number]
            generator = torch_generator(self.seed + 1000 * (number + 1), self.lesson.device)
        stay, ask = (self.seen, self.seen) if self.config.leave_out == 0 else self.lesson.draw(self.seen, generator)
        drawn = self._messages(stay, generator), self.lesson.asked(where(ask))
        if self.config.draws and number == len(self.draws):
            self.draws.append(drawn)
        return drawn

    def _messages(self, stay: Tensor, generator: torch.Generator) -> list[Messages]:
        """For each layer; edges are dropped anew for each."""
        config, everything = self.config, stay is self.seen
        if config.edge_dropout:
            part = self._seen_graph if everything else self.lesson.graph.part(stay)
            return [part.messages(config.edge_dropout, generator) for _ in range(config.layers)]
        return [self.whole if everything else self.lesson.graph.part(stay).messages()] * config.layers

    @cached_property
    def _seen_graph(self) -> PreferenceGraph:
        return self.lesson.graph.part(self.seen)

    def _batch_loss(self) -> Tensor:
        """Of the published schedule: a propagation over the whole graph for one batch of its labels."""
        lesson, config, network = self.lesson, self.config, self.network
        asked = lesson.asked(self._next_batch())
        out = network(lesson.phi, self._messages(self.seen, self.generator))
        users, responses, _ = out
        met = (
            users.index_select(0, asked.user),
            responses.index_select(0, asked.left),
            responses.index_select(0, asked.right),
        )
        return (
            lesson.loss(lesson.logits(network, out, asked), asked)
            + config.l2_asked * _squares(*met)
            + penalty(network, config) / len(lesson.user)
        )

    def _next_batch(self) -> Tensor:
        if self.place >= len(self.order):
            rows = self.seen.nonzero()[:, 0]
            order = torch.randperm(len(rows), generator=self.generator, device=self.lesson.device)
            self.order, self.place = rows[order], 0
        batch = self.order[self.place : self.place + self.config.batch]
        self.place += len(batch)
        return batch

    def _keeping(self, n: int, dropped: float) -> Tensor | None:
        """Mask (n, 1) of rows that keep their id; None, without a draw, where all do."""
        if dropped == 0:
            return None
        return (torch.rand(n, 1, generator=self.generator, device=self.lesson.device) >= dropped).float()

    def _held_logits(self) -> Tensor:
        return self.lesson.logits(self.network, self.network(self.lesson.phi, self.whole), self.held)

    @torch.no_grad()
    def _held_loss(self) -> float:
        return float((bradley_terry(self._held_logits(), self.held.outcome) * self.held.weight).mean())

    @property
    def state(self) -> dict:
        """Everything the next step reads, as it is now; tensors are not copied."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "kept": self.kept,
            "generator": self.generator.get_state(),
            "order": self.order,
        } | {name: getattr(self, name) for name in _NUMBERS}

    def _take(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.kept = {name: value.to(self.lesson.device) for name, value in state["kept"].items()}
        self.order = state["order"].to(self.lesson.device)
        for name in _NUMBERS:
            setattr(self, name, state[name])
        numbers = range(min(self.step, self.config.draws))
        self.draws = []
        for self.step in numbers:  # each by its own seed, as it was
            self._drawn()
        self.step = state["step"]


_NUMBERS = ("step", "firm", "best", "best_step", "worse", "place", "loss")


def penalty(network: CoplGraph, config: GraphConfig, firm: float = 1.0) -> Tensor:
    """Minus the log of the Gaussian priors, that on ids ``firm`` times as precise, summed; the caller divides by the
    number of labels."""
    ids = _squares(network.user_residual, network.response_residual)
    liked = _squares(network.response_bias, network.text_bias, network.bias)
    terms = (
        (firm * config.l2, ids),
        (config.l2_text, _squares(network.text.weight)),
        (config.l2_bias, liked),
        (config.l2_layer, network.layer_drift()),
        (config.side_l2, _squares(network.user_side)),
        (config.firmness_l2, _squares(network.user_firmness)),
    )
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


def optimiser_of(network: CoplGraph, config: GraphConfig) -> torch.optim.Optimizer:
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def steps_of(config: GraphConfig, n_seen: int) -> int:
    """How many steps a member takes at most, with that many labels to learn from."""
    return config.epochs * -(-n_seen // config.batch) if config.batch else config.max_steps


def rate_at(step: int, config: GraphConfig, steps: int) -> float:
    """Share of the learning rate after that many steps: a linear rise over ``warmup`` of them, then a cosine to a
    fiftieth."""
    rise = int(config.warmup * steps)
    if step < rise:
        return step / rise
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _copy(network: CoplGraph) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
