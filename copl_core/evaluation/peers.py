"""The published peers as methods of ``evaluate``.

    uniform       the reward model of CoPL without experts: one LoRA in the same backbone, with the same labels and the
                  same time budget, one reward for all users
    uniform-head, i2e, vpl, pal, lore, group-oracle
                  the peers of ``peer_models``, on frozen text embeddings

The latter are all fitted the same way: Bradley–Terry with the position bias as a nuisance (γ for all users, and γ_u
with a Gaussian prior where the peer distinguishes users; neither where the position is unknown), AdamW on all labels at
once.  The few options of a peer, its weight decay, its number of steps and the precision of its prior on new users are
chosen on validation labels (``validation``), which are about new texts and by new users where the test labels are.
Then all training labels are fitted with the chosen options, as many times as CoPL's graph has members, and the log-odds
are averaged.  Of the test labels only this is read: which users and texts are new.  A new user has γ_u = 0.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EmbedTexts, EvalDataset, Method
from copl_core.evaluation.validation import FEWEST_LABELS, validation_split
from copl_core.preference.config import GraphConfig
from copl_core.records import CoplError
from copl_core.training.metrics import log_losses
from copl_core.training.split import ValidationSplit

if TYPE_CHECKING:
    from torch import Tensor

    from copl_core.evaluation.peer_models import Labels, UniformHead

HEADS = {
    "uniform-head": "UniformHead",
    "i2e": "I2E",
    "vpl": "VPL",
    "pal": "PAL",
    "lore": "LoRe",
    "group-oracle": "GroupOracle",
}
DECAYS = (0.1, 1.0)  # weight decay, in units of the learning rate
LR = 1e-2
MOST_STEPS = 300
LOOK_EVERY = 5  # steps between two evaluations on the validation labels
PATIENCE = 6  # evaluations without gain
SIDE_PRECISION = 3.0  # of the prior on γ_u
BLIND_STEPS = 60  # with the first option, where there are too few validation labels


def _head(name: str) -> Method:
    def run(dataset: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        import torch

        from copl_core.evaluation import peer_models

        peer = getattr(peer_models, HEADS[name])
        member = group_membership(dataset) if name == "group-oracle" else None
        x = standardised(embed(), dataset.train.n_responses)

        def make(n_known: int, user_rows: np.ndarray, option: dict, number: int = 0) -> UniformHead:
            torch.manual_seed(seed * 1000 + number)
            more = {} if member is None else {"member": member[user_rows]}
            return peer(x.shape[1], n_known, **option, **more)

        with torch.random.fork_rng():
            chosen = choose(make, peer, x, validation_split(dataset, seed))
            return averaged(make, chosen, x, dataset)

    return run


def uniform_reward(dataset: EvalDataset, embed: EmbedTexts, seed: int, settings: Settings | None = None) -> np.ndarray:
    """One LoRA in the reward backbone for all users, with the code and the time budget of the personalised model.

    Args:
        settings: device, backbone and budget in seconds; None takes those of the environment.
    Raises:
        CoplError: the budget is not positive.
    """
    from copl_core.install.weights import resolver
    from copl_core.reward.hidden import states_folder
    from copl_core.reward.model import RewardConfig
    from copl_core.training.reward_fit import fit_reward

    settings = settings or Settings.from_environment()
    seconds = reward_seconds("uniform", settings)
    model = fit_reward(
        dataset.train,
        np.zeros((dataset.train.n_users, 1), np.float32),
        RewardConfig.for_backbone(settings.backbone, n_experts=0, steps=settings.reward_steps),
        weights=resolver(settings.weights),
        seed=seed,
        device=settings.device,
        time_budget_s=seconds,
        disk=states_folder(settings),
    )
    test = dataset.test
    used, index = np.unique(np.stack([test.left, test.right]), return_inverse=True)
    rewards = model.rewards([dataset.texts[row] for row in used], np.zeros((1, 1), np.float32))[0]
    left, right = index.reshape(2, -1)
    return (rewards[left] - rewards[right] + model.metrics["side"] * test.position_known) / float(model.calibration)


PEERS: dict[str, Method] = {"uniform": uniform_reward} | {name: _head(name) for name in HEADS}


def reward_seconds(name: str, settings: Settings) -> float:
    """The time budget of a method that is nothing but a reward model.

    Raises:
        CoplError: the budget is not positive, so nothing would be trained.
    """
    if settings.reward_budget_seconds <= 0:
        raise CoplError(
            f"{name} got 0 seconds for its reward model and needs some: give it time with --reward-seconds "
            f"(or COPL_REWARD_BUDGET_SECONDS), or leave {name} out."
        )
    return settings.reward_budget_seconds


@dataclass(frozen=True)
class Chosen:
    """The options that a peer is fitted with."""

    option: dict
    decay: float
    steps: int
    prior_factor: float


def choose(make: Callable[..., UniformHead], peer: type[UniformHead], x: Tensor, split: ValidationSplit) -> Chosen:
    """The option, decay, steps and prior factor of least validation log-loss, from one fit of each candidate.

    Args:
        make: a new peer for (known users, rows of all users in the dataset, option, number); each number is a seed.
        x: (R_all, P) embeddings by row of the dataset.
    """
    from copl_core.evaluation.peer_models import Labels

    if len(split.weight) < FEWEST_LABELS or not split.train.labels.decided.any():
        return Chosen(peer.options[0], DECAYS[0], BLIND_STEPS, peer.prior_factors[0])
    x, labels = x[split.text_rows], Labels.of(split.train.labels)
    tried = []
    for (index, option), decay in product(enumerate(peer.options), DECAYS):
        fit = PeerFit(make(split.train.n_users, split.user_rows, option), x, labels, decay)
        tried.append((*fit.stop_early(split), index, decay))
    _, steps, prior_factor, index, decay = min(tried)
    return Chosen(peer.options[index], decay, steps, prior_factor)


def averaged(make: Callable[..., UniformHead], chosen: Chosen, x: Tensor, dataset: EvalDataset) -> np.ndarray:
    """Log-odds (N,) of the test labels: the mean of as many fits, with different seeds, as the graph has members."""
    from copl_core.evaluation.peer_models import Labels

    train, every_row = dataset.train, np.arange(len(dataset.users))
    labels = Labels.of(train.labels)
    logits = []
    for number in range(GraphConfig().sized(len(train.labels)).architecture.members):
        fit = PeerFit(make(train.n_users, every_row, chosen.option, number), x, labels, chosen.decay)
        logits.append(fit.train(chosen.steps).logits(dataset, chosen.prior_factor))
    return np.mean(logits, axis=0)


class PeerFit:
    """A peer and its position biases in training on ``labels`` of texts ``x`` (R, P)."""

    def __init__(self, peer: UniformHead, x: Tensor, labels: Labels, decay: float) -> None:
        import torch

        from copl_core.evaluation.peer_models import FEW_LR

        self.peer, self.x, self.labels = peer, x, labels
        self.side = torch.zeros((), requires_grad=True)
        self.user_side = torch.zeros(peer.n_users, requires_grad=peer.personal)
        sides = [self.side, self.user_side] if peer.personal else [self.side]
        slow = [p for name, p in peer.named_parameters() if name not in peer.fast]
        fast: dict[str, Any] = {"params": [getattr(peer, name) for name in peer.fast], "lr": FEW_LR}
        groups = [
            {"params": slow},
            fast | {"weight_decay": decay * LR / FEW_LR},  # the same shrinkage per step
            {"params": sides, "weight_decay": 0},
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=LR, weight_decay=decay)

    def train(self, steps: int) -> PeerFit:
        for _ in range(steps):
            self.step()
        return self

    def stop_early(self, split: ValidationSplit) -> tuple[float, int, float]:
        """Least validation log-loss, the step and the prior factor that gave it."""
        best, best_step, best_factor = math.inf, 0, self.peer.prior_factors[0]
        factors = self.peer.prior_factors if len(split.context) else self.peer.prior_factors[:1]
        for step in range(1, MOST_STEPS + 1):
            self.step()
            if step % LOOK_EVERY == 0:
                loss, index = min((self.validation_loss(split, factor), index) for index, factor in enumerate(factors))
                if loss < best - 1e-5:
                    best, best_step, best_factor = loss, step, factors[index]
                elif step - best_step >= PATIENCE * LOOK_EVERY:
                    break
        return best, best_step, best_factor

    def step(self) -> None:
        import torch

        self.peer.train()
        texts, read, target = self.peer.read(self.x), self.labels, self.labels
        if self.peer.splits:
            half = torch.rand(len(self.labels)) < 0.5
            read, target = self.labels.take(half), self.labels.take(~half)
        users, cost = self.peer.users(texts, read)
        loss = self._log_loss(texts, users, target) + cost
        loss = loss + 0.5 * SIDE_PRECISION * self.user_side.square().sum() / len(self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def validation_loss(self, split: ValidationSplit, prior_factor: float) -> float:
        return float(log_losses(self.logits(split, prior_factor), split.test.outcome) @ split.weight)

    def _log_loss(self, texts: Tensor, users: Tensor, labels: Labels) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        side = (self.side + self.user_side[labels.user]) * labels.known
        logits = self.peer.margins(texts, users, labels) + side
        return binary_cross_entropy_with_logits(logits, labels.outcome)

    def logits(self, split: EvalDataset | ValidationSplit, prior_factor: float) -> np.ndarray:
        """Log-odds (N,) of the test labels of the split whose training labels and texts were fitted: known users by
        their labels, new users by the peer's own rule."""
        import torch

        from copl_core.evaluation.peer_models import Labels, counted_from

        n_known, test = self.peer.n_users, split.test
        n_new = split.n_users - n_known
        self.peer.eval()
        with torch.no_grad():
            texts = self.peer.read(self.x)
            known = self.peer.users(texts, self.labels)[0]
        context = counted_from(Labels.of(split.context.take(split.context.user >= n_known)), n_known)
        new = self.peer.new_users(texts, context, n_new, float(self.side.detach()), prior_factor)
        users = torch.cat([known, new]).detach()
        side = torch.cat([self.user_side, self.user_side.new_zeros(n_new)]).detach() + self.side.detach()
        labels = Labels.of(test, ties=True)
        with torch.no_grad():
            return (self.peer.margins(texts, users, labels) + side[labels.user] * labels.known).numpy()


def standardised(phi: np.ndarray, n_train: int) -> Tensor:
    """φ (R_all, P) float32 with the mean and scale of the first ``n_train`` rows, the texts of training."""
    import torch

    known = phi[:n_train].astype(np.float64)
    scale = known.std(0)
    x = (phi - known.mean(0)) / np.where(scale > 1e-8, scale, 1.0)
    return torch.from_numpy(np.clip(x, -10, 10).astype(np.float32))


def group_membership(dataset: EvalDataset) -> Tensor:
    """(U_all, G) float32: one where a user is known to be in a group.

    Raises:
        CoplError: fewer than two groups are known.
    """
    import torch

    names = sorted({group for group in dataset.groups if group is not None})
    if len(names) < 2:
        raise CoplError(
            f"group-oracle got labels of {len(names)} known groups and needs two: give rows a group, or leave it out."
        )
    return torch.tensor([[float(group == name) for name in names] for group in dataset.groups])
