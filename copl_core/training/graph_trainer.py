"""Train one member of a preference graph: its steps, the query labels of each step, and when it stops.

At each step a random ``leave_out`` share of the labels leaves the graph, and only these query labels enter the loss:
message passing over the very labels that the loss reads would leak the answer.  Labels are drawn by user–response edge.
The published schedule (``batch``) takes its query labels in batches, and they stay in the graph.  A member stops on
held-out labels of its own.  When their loss stops improving, ids have begun to memorise labels: training returns to its
best state and makes the prior on ids more precise, so that one setting serves labels with little noise and with much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import Messages, PreferenceGraph, QueryPairs, where
from copl_core.preference.shard import ALONE, Rows, Shard
from copl_core.preference.spectral import leading
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.losses import bradley_terry, flip_rate, preference_loss, torch_generator

Report = Callable[..., None]  # (step, loss), and the held-out loss after a check
Save = Callable[[], None]  # may store ``Member.state``, which is computed only when it is read


def edge_share_for(share: float) -> float:
    """The share of user–response edges whose labels make up this share of all labels; a label has about two edges."""
    return 1 - (1 - share) ** 0.5


def edge_hash(user_ids: np.ndarray, response_ids: np.ndarray) -> np.ndarray:
    """A number (E,) int32 of each user–response edge by its ids, from which every draw of the edge follows: who comes
    or leaves changes the draws of nobody else.
    """
    mixed = user_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + response_ids.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32)


def drawn_edges(edges: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Mask (E,) of about a ``share`` of the edges, by their ``edge_hash`` and one number of the generator.

    The hash of 32 bits is Wellons' lowbias32; products of int32 wrap around, and a shift keeps the sign.
    """
    mixed = edges ^ int(torch.randint(2**31, (), generator=generator, device=generator.device))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (32 - shift)) - 1))) * factor
    mixed = mixed ^ ((mixed >> 16) & 0xFFFF)
    return mixed < round(share * 2**32) - 2**31


@dataclass(frozen=True)
class LabelBatch:
    """Query labels (B,): the rows of users, left and right responses, the outcome and the weight of each.

    ``known`` is 1 where the position on screen is known, else 0; None: it is known for all.
    """

    user: Tensor
    left: Tensor
    right: Tensor
    outcome: Tensor
    weight: Tensor
    known: Tensor | None
    pairs: QueryPairs | None
    n: int  # query labels of all ranks


@dataclass
class GraphData:
    """What the members of one fit share: the labels, their graph, and the graph's text input.

    Over several ranks users and labels are those of this rank's ``shard``.
    """

    data: TrainingData
    phi: Tensor  # (R, p)
    config: GraphConfig
    device: str | torch.device
    shard: Shard = ALONE
    account: np.ndarray | None = None  # (U,) factor on each account's labels (``influence``); None: 1 for all

    def __post_init__(self) -> None:
        data, labels, priors, shard = self.data, self.data.labels, self.config.priors, self.shard
        self.n_labels = int(shard.total(len(labels)))  # of all ranks
        self.users = shard.rows(data.n_users)
        self.graph = PreferenceGraph.build(labels, data.n_users, data.n_responses, self.device, shard)
        self.user, self.left, self.right = (
            torch.as_tensor(column, dtype=torch.int32, device=self.device)
            for column in (labels.user, labels.left, labels.right)
        )
        self.pairs = (
            None
            if self.config.paper.batch
            else QueryPairs.build(self.user, self.left, self.right, data.n_users, data.n_responses)
        )
        edges = np.stack([labels.user * data.n_responses + labels.left, labels.user * data.n_responses + labels.right])
        unique, edges = np.unique(edges, return_inverse=True)  # by user: the edges of a rank are one block of all
        user_ids, response_ids = data.user_ids[unique // data.n_responses], data.response_ids[unique % data.n_responses]
        self.edge_hash = torch.as_tensor(edge_hash(user_ids, response_ids), device=self.device)
        self.edges = torch.as_tensor(edges.reshape(2, -1), dtype=torch.int32, device=self.device)  # (2, N)
        self.outcome = torch.as_tensor(labels.outcome, device=self.device)
        weight = weight_of(labels, self.config)
        mean_weight = shard.total(shard.mean(weight, self.n_labels))
        self.factor = None
        if self.account is not None:  # the mean stays: nobody's labels weigh more for it
            weight = weight * self.account[labels.user]
            self.factor = torch.as_tensor(self.account, device=self.device)
        self.weight = torch.as_tensor(weight / mean_weight, dtype=torch.float32, device=self.device)
        self.known = None
        if not labels.position_known.all():
            self.known = torch.as_tensor(labels.position_known, dtype=torch.float32, device=self.device)
        self.flip = 0.0
        if priors.loss != "bt":
            self.flip = flip_rate(labels) if priors.flip is None else priors.flip

    def batch(self, rows: Tensor) -> LabelBatch:
        """The labels of rows (B,)."""
        columns = (self.user, self.left, self.right, self.outcome, self.weight)
        user, left, right, outcome, weight = (column.index_select(0, rows) for column in columns)
        known = None if self.known is None else self.known.index_select(0, rows)
        pairs = None if self.pairs is None else self.pairs.taken(rows)
        return LabelBatch(user, left, right, outcome, weight, known, pairs, int(self.shard.total(len(rows))))

    def logits(self, network: CoplGraph, out: tuple[Tensor, Tensor, Tensor], query: LabelBatch) -> Tensor:
        """Log-odds (B,) of left, with the position bias where the position is known."""
        users, responses, bias = out[0], *(self.shard.shared(part) for part in out[1:])
        if query.pairs is not None:
            margin = query.pairs.margins(users, responses)
        else:
            difference = responses.index_select(0, query.left) - responses.index_select(0, query.right)
            margin = (users.index_select(0, query.user) * difference).sum(-1)
        if network.cyclic is not None:
            own, left, right = (
                table.index_select(0, rows)
                for table, rows in ((users, query.user), (responses, query.left), (responses, query.right))
            )
            margin = margin + network.cyclic(own, left, right)
        if self.config.paper.ids_only:
            return margin
        margin = margin + bias.index_select(0, query.left) - bias.index_select(0, query.right)
        if self.config.priors.l2_inverse_temperature:
            margin = margin * network.user_log_inverse_temperature.exp().index_select(0, query.user)
        position_bias = self.shard.shared(network.position_bias)
        position_bias = position_bias + network.user_position_bias.index_select(0, query.user)
        return margin + (position_bias if query.known is None else position_bias * query.known)

    def loss(self, logits: Tensor, query: LabelBatch) -> Tensor:
        """The weighted mean loss of the query labels, without priors; over several ranks, this rank's part of it."""
        priors = self.config.priors
        each = preference_loss(logits, query.outcome, priors.loss, self.flip, priors.smoothing)
        return self.shard.mean(each * query.weight, query.n)

    def draw(self, seen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Masks (N,) of the labels that stay in the graph and of the query labels, which leave it.  If none leaves,
        both masks are ``seen`` (N,)."""
        drawn = drawn_edges(self.edge_hash, generator, edge_share_for(self.config.schedule.leave_out))
        left_out = (drawn.index_select(0, self.edges[0]) | drawn.index_select(0, self.edges[1])) & seen
        return (seen & ~left_out, left_out) if self.shard.total(bool(left_out.any())) else (seen, seen)


class Member:
    """One network in training.

    Over several ranks each has a member of its own users, and all take the same steps: every draw is this rank's part
    of the one that a single process makes, and losses are summed over the ranks.

    Args:
        held: rows (H,) of the held-out labels, on which the member stops and which it never learns from.
        apart: rows of further labels that it never learns from.
        warm: whether the network's ids come from an earlier fit and are a start worth keeping.
    """

    def __init__(
        self,
        graph_data: GraphData,
        network: CoplGraph,
        held: np.ndarray,
        seed: int,
        warm: bool = False,
        apart: np.ndarray | None = None,
    ) -> None:
        self.graph_data, self.network, self.config = graph_data, network, graph_data.config
        self.shard = graph_data.shard
        self.seed, self.warm = seed, warm
        self.generator = torch_generator(seed, graph_data.device)
        rows = torch.as_tensor(held, device=graph_data.device)
        self.seen = torch.ones(len(graph_data.user), dtype=torch.bool, device=graph_data.device)
        self.seen[rows] = False
        if apart is not None:
            self.seen[torch.as_tensor(apart, device=graph_data.device)] = False
        n_apart = 0 if apart is None else int(self.shard.total(len(apart)))
        self.whole, self.held = self._seen_graph.messages(), graph_data.batch(rows)
        if not self.config.paper.edge_dropout:
            del self._seen_graph  # for a million users it takes most of a GiB
        self.draws: list[tuple[list[Messages], LabelBatch]] = []
        self.order, self.position = torch.empty(0, dtype=torch.long), 0  # in a pass over the labels, with ``batch``
        self.optimiser = optimiser_of(network, self.config)
        self.steps = steps_of(self.config, graph_data.n_labels - self.held.n - n_apart)
        self.step, self.id_prior_scale, self.loss = 0, 1.0, math.nan
        self.data_term = torch.zeros(())  # of the last step's loss, this rank's part
        self.best, self.best_step, self.worse, self.kept = math.inf, 0, 0, _copy(network)

    def train(self, report: Report, save: Save | None = None, state: dict[str, Any] | None = None) -> np.ndarray:
        """Train in place, from ``state`` if there is one; returns log-odds (H,) of the held-out labels.

        Args:
            save: called after every step.
        Raises:
            CoplError: if the held-out loss is not finite and no better state exists.
        """
        if state is None:
            self._begin()
        else:
            self.load_state(state)
        while not self._ended():
            self.loss = self.take_step()
            if self.step % self.config.schedule.check_every == 0 and self.held.n:
                loss = self._held_loss()
                self._check(loss)
                report(self.step, self.loss, loss)
            if save is not None:
                save()
        if self.held.n:
            self.network.load_state_dict(self.kept)
        self.draws.clear()
        report(self.steps, self.loss)
        with torch.no_grad():
            return self._held_logits().cpu().numpy()

    def _begin(self) -> None:
        architecture = self.config.architecture
        if architecture.spectral and not (self.warm or self.config.paper.ids_only):
            width = min(architecture.spectral, architecture.dim)
            self.network.start_ids(*leading(self.whole, width, self.generator))
            self.kept = _copy(self.network)
        if self.warm and self.held.n:  # the earlier fit may be hard to improve on
            self.best = self._held_loss()

    def _ended(self) -> bool:
        return self.step >= self.steps or (
            self.held.n > 0 and self.step - self.best_step >= self.config.schedule.patience
        )

    def _check(self, loss: float) -> None:
        """Keep the state of the lowest held-out loss; after checks without improvement return to it, with a more
        precise prior on ids from then on."""
        if not math.isfinite(loss) and self.best == math.inf:
            raise CoplError(
                f"The graph's training broke down: its held-out loss was {loss} after {self.step} steps. "
                "A smaller learning rate, or another loss, is needed."
            )
        if loss < self.best:
            self.best, self.best_step, self.worse, self.kept = loss, self.step, 0, _copy(self.network)
            return
        self.worse += 1
        priors = self.config.priors
        if priors.id_prior_growth > 1 and self.worse >= priors.growth_after:
            self.worse, self.id_prior_scale = 0, self.id_prior_scale * priors.id_prior_growth
            self.network.load_state_dict(self.kept)

    def take_step(self) -> float:
        """One step of the optimiser; returns the loss of its query labels, without the priors."""
        rate = self.config.schedule.lr * rate_at(self.step, self.config, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._batch_loss() if self.config.paper.batch else self._left_out_loss()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return self.shard.total(float(self.data_term.detach()))

    def _left_out_loss(self) -> Tensor:
        """The loss of all labels that leave the graph for this step, with the priors."""
        graph_data, network, schedule = self.graph_data, self.network, self.config.schedule
        messages, query = self._drawn()
        responses = Rows((graph_data.data.n_responses,), 0)  # the same on all ranks
        keep = self._keep_mask(responses, schedule.id_dropout)
        keep_user = self._keep_mask(graph_data.users, schedule.user_dropout)
        logits = graph_data.logits(network, network(graph_data.phi, messages, keep, keep_user), query)
        prior = penalty(network, self.config, self.id_prior_scale, graph_data.factor)
        self.data_term = graph_data.loss(logits, query)
        return self.data_term + prior / graph_data.n_labels

    def _drawn(self) -> tuple[list[Messages], LabelBatch]:
        """Messages by layer and the query labels; with ``leave_out_draws`` a few draws take turns, each from its own
        seed."""
        number, generator, n_draws = self.step, self.generator, self.config.schedule.leave_out_draws
        if n_draws:
            number = self.step % n_draws
            if number < len(self.draws):
                return self.draws[number]
            generator = torch_generator(self.seed + 1000 * (number + 1), self.graph_data.device)
        stay, query = self.seen, self.seen
        if self.config.schedule.leave_out > 0:
            stay, query = self.graph_data.draw(self.seen, generator)
        drawn = self._messages(stay, generator), self.graph_data.batch(where(query))
        if n_draws and number == len(self.draws):
            self.draws.append(drawn)
        return drawn

    def _messages(self, stay: Tensor, generator: torch.Generator) -> list[Messages]:
        """One per layer; each layer has its own draw of dropped edges."""
        n_layers, edge_dropout = self.config.architecture.n_layers, self.config.paper.edge_dropout
        everything = stay is self.seen
        if edge_dropout:
            part = self._seen_graph if everything else self.graph_data.graph.part(stay)
            return [part.messages(edge_dropout, generator) for _ in range(n_layers)]
        return [self.whole if everything else self.graph_data.graph.part(stay).messages()] * n_layers

    @cached_property
    def _seen_graph(self) -> PreferenceGraph:
        return self.graph_data.graph.part(self.seen)

    def _batch_loss(self) -> Tensor:
        """The loss of the published schedule: a propagation over the whole graph for one batch of its labels."""
        graph_data, network = self.graph_data, self.network
        query = graph_data.batch(self._next_batch())
        out = network(graph_data.phi, self._messages(self.seen, self.generator))
        users, responses, _ = out
        embeddings = (
            users.index_select(0, query.user),
            responses.index_select(0, query.left),
            responses.index_select(0, query.right),
        )
        self.data_term = graph_data.loss(graph_data.logits(network, out, query), query)
        return (
            self.data_term
            + self.config.paper.l2_batch * _squares(*embeddings)
            + penalty(network, self.config, account=graph_data.factor) / graph_data.n_labels
        )

    def _next_batch(self) -> Tensor:
        if self.position >= len(self.order):
            rows = self.seen.nonzero()[:, 0]
            order = torch.randperm(len(rows), generator=self.generator, device=self.graph_data.device)
            self.order, self.position = rows[order], 0
        batch = self.order[self.position : self.position + self.config.paper.batch]
        self.position += len(batch)
        return batch

    def _keep_mask(self, rows: Rows, dropped: float) -> Tensor | None:
        """Mask (n, 1) of own rows that keep their id; None, without a draw, if all do."""
        if dropped == 0:
            return None
        return (rows.rand(self.generator, self.graph_data.device)[:, None] >= dropped).float()

    def _held_logits(self) -> Tensor:
        return self.graph_data.logits(self.network, self.network(self.graph_data.phi, self.whole), self.held)

    @torch.no_grad()
    def _held_loss(self) -> float:
        losses = bradley_terry(self._held_logits(), self.held.outcome) * self.held.weight
        return self.shard.total(float(self.shard.mean(losses, self.held.n)))

    @property
    def state(self) -> dict[str, Any]:
        """Everything that the next step reads; tensors are not copied."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "kept": self.kept,
            "generator": self.generator.get_state(),
            "order": self.order,
        } | {stored: getattr(self, name) for name, stored in _NUMBERS.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, bit for bit."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.kept = {name: value.to(self.graph_data.device) for name, value in state["kept"].items()}
        self.order = state["order"].to(self.graph_data.device)
        for name, stored in _NUMBERS.items():
            setattr(self, name, state[stored])
        self.draws = []
        for number in range(min(state["step"], self.config.schedule.leave_out_draws)):  # each from its own seed
            self.step = number
            self._drawn()
        self.step = state["step"]


# Attribute → name in a stored training state.
_NUMBERS = {name: name for name in ("step", "best", "best_step", "worse", "loss")} | {
    "id_prior_scale": "firm",  # stored name
    "position": "place",
}


def weight_of(labels: Comparisons, config: GraphConfig) -> np.ndarray:
    """Weight (N,) of each label in the loss, before any bound on accounts."""
    return np.where(labels.decided, labels.strength, config.priors.tie_weight * labels.strength)


def penalty(
    network: CoplGraph, config: GraphConfig, id_prior_scale: float = 1.0, account: Tensor | None = None
) -> Tensor:
    """Minus the log density of the Gaussian priors, up to a constant; the caller divides by the number of labels.

    ``id_prior_scale`` multiplies the precision of the prior on ids, ``account`` (U,) that of each user's own rows.  On
    each of several ranks it counts its own users and everything that is shared, since every rank has the whole gradient
    of that.
    """
    priors = config.priors
    ids = _of_users(network.user_residual, account) + _squares(network.response_residual)
    bias = _squares(network.response_bias, network.text_bias, network.bias)
    terms = (
        (id_prior_scale * priors.l2, ids),
        (priors.l2_text, _squares(network.text.weight)),
        (priors.l2_bias, bias),
        (priors.l2_layer, network.layer_drift()),
        (priors.l2_position_bias, _of_users(network.user_position_bias, account)),
        (priors.l2_inverse_temperature, _of_users(network.user_log_inverse_temperature, account)),
        *(() if network.cyclic is None else ((priors.l2_cyclic, _squares(*network.cyclic.parameters())),)),
    )
    return 0.5 * _total(precision * squares for precision, squares in terms)


def _of_users(rows: Tensor, account: Tensor | None) -> Tensor:
    """Σ over users of the squares of their row, times the factor (U,) of their account."""
    if account is None:
        return _squares(rows)
    return _squares(rows * account.sqrt().view(-1, *[1] * (rows.dim() - 1)))


def _squares(*weights: Tensor) -> Tensor:
    return _total(_Square.apply(weight) for weight in weights)


def _total(terms: Iterable[Tensor]) -> Tensor:
    return sum(terms)  # type: ignore[return-value]  # the start 0 plus a tensor is a tensor


class _Square(torch.autograd.Function):
    """Sum of squares.  A dot product of a tensor with itself would return two gradients to be added."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.dot(weight.flatten(), weight.flatten())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * (2 * grad)


def optimiser_of(network: CoplGraph, config: GraphConfig) -> torch.optim.Optimizer:
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    return torch.optim.AdamW(trained, lr=config.schedule.lr, weight_decay=config.paper.weight_decay, fused=True)


def steps_of(config: GraphConfig, n_seen: int) -> int:
    """The largest number of steps of a member that learns from ``n_seen`` labels."""
    batch = config.paper.batch
    return config.paper.epochs * -(-n_seen // batch) if batch else config.schedule.max_steps


def rate_at(step: int, config: GraphConfig, steps: int) -> float:
    """Factor on the learning rate after ``step`` of ``steps`` steps: a linear rise over the ``warmup`` share of them,
    then a cosine down to 1/50."""
    rise = int(config.paper.warmup * steps)
    if step < rise:
        return step / rise
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _copy(network: CoplGraph) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
