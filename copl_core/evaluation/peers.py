"""The published peers as methods of ``evaluate``: fitted to a world, they give log-odds of left for the asked labels.

    uniform       the reward model of CoPL with no experts: one LoRA in the same backbone, the same labels and the same
                  budget of time, one reward for everybody
    uniform-head, i2e, vpl, pal, lore, group-oracle
                  the peers of ``peer_models``, on frozen text states

The latter are fitted alike: Bradley–Terry with the screen side as a nuisance (γ for all, and γ_u with a Gaussian prior
where the peer tells people apart), AdamW on all labels at once, and the few options of a peer, its weight decay, its
number of steps and the firmness of its prior on new people chosen on validation labels, a part of the training labels
(``tried_on``).  Where new texts or new people are asked, validation labels are about texts and by people kept from the
trial, as in CoPL's own probe; else they are drawn at random.  Then all training labels are fitted with what was
chosen, as often as CoPL's graph has members, and log-odds are averaged.  Of the asked labels nothing is read but
whether their users and texts are new.  Whoever is new gets γ_u = 0.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from copl_core.config import Settings
from copl_core.evaluation.dataset import EmbedTexts, EvalDataset, Method, places_of, without_strangers
from copl_core.evaluation.validation import WORTH, probe_world
from copl_core.preference.state import GraphConfig
from copl_core.records import Comparisons, CoplError
from copl_core.snapshots.mix import kind_of
from copl_core.training.metrics import log_losses
from copl_core.training.split import ValidationSplit, draws

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
LOOK_EVERY = 5  # steps between two looks at the validation labels
PATIENCE = 6  # looks without gain
SIDE_PRECISION = 3.0  # of the prior on γ_u
HOLDOUT = 0.15
FEWEST_HELD = 10  # with fewer validation labels the first option is taken, for ``BLIND_STEPS``
BLIND_STEPS = 60


def _head(name: str) -> Method:
    def run(world: EvalDataset, embed: EmbedTexts, seed: int) -> np.ndarray:
        import torch

        from copl_core.evaluation import peer_models

        peer = getattr(peer_models, HEADS[name])
        member = membership(world) if name == "group-oracle" else None
        x = standardised(embed(), world.train.n_responses)

        def make(n_known: int, user_rows: np.ndarray, option: dict, number: int = 0) -> UniformHead:
            torch.manual_seed(seed * 1000 + number)
            given = {} if member is None else {"member": member[user_rows]}
            return peer(x.shape[1], n_known, **option, **given)

        with torch.random.fork_rng():
            chosen = choose(make, peer, x, tried_on(world, seed))
            return averaged(make, chosen, x, world)

    return run


def uniform_reward(world: EvalDataset, embed: EmbedTexts, seed: int, settings: Settings | None = None) -> np.ndarray:
    """One LoRA in the reward backbone for everybody, through the very code and budget of the personalised one.

    Args:
        settings: device, backbone and budget of seconds; those of the environment unless given.
    Raises:
        CoplError: the budget is no second.
    """
    from copl_core.install.weights import resolver
    from copl_core.reward.model import RewardConfig
    from copl_core.training.reward_fit import fit_reward

    settings = settings or Settings.from_environment()
    seconds = seconds_for("uniform", settings)
    model = fit_reward(
        world.train,
        np.zeros((world.train.n_users, 1), np.float32),
        RewardConfig.for_backbone(settings.backbone, n_experts=0),
        weights=resolver(settings.weights),
        seed=seed,
        device=settings.device,
        time_budget_s=seconds,
    )
    asked = world.asked
    used, place = np.unique(np.stack([asked.left, asked.right]), return_inverse=True)
    rewards = model.rewards([world.texts[row] for row in used], np.zeros((1, 1), np.float32))[0]
    left, right = place.reshape(2, -1)
    return (rewards[left] - rewards[right] + model.metrics["side"]) / float(model.calibration)


PEERS: dict[str, Method] = {"uniform": uniform_reward} | {name: _head(name) for name in HEADS}


def seconds_for(name: str, settings: Settings) -> float:
    """The budget of a reward model that is asked for by itself.

    Raises:
        CoplError: there is none: nothing would be trained.
    """
    if settings.reward_budget_seconds <= 0:
        raise CoplError(
            f"{name} got 0 seconds for its reward model and needs some: give it time with --reward-seconds "
            f"(or COPL_REWARD_BUDGET_SECONDS), or leave {name} out."
        )
    return settings.reward_budget_seconds


def tried_on(world: EvalDataset, seed: int) -> ValidationSplit:
    """Where options are tried: on labels of the kind that is really asked, or drawn at random where none is new."""
    return imitation(world, seed) or _random_trial(world, seed)


def imitation(world: EvalDataset, seed: int) -> ValidationSplit | None:
    """CoPL's own probe, where many asked labels are about new texts or by new people and training labels can imitate
    them; None otherwise.

    Kinds of labels (something new or nothing) count as they do among the asked ones.
    """
    world = without_strangers(world)
    if max(world.new_text.mean(), world.new_user.mean()) <= WORTH:
        return None
    probe = probe_world(world, seed)
    weight = _as_asked(kind_of(probe.new_text, probe.new_user), kind_of(world.new_text, world.new_user))
    if (weight > 0).sum() < FEWEST_HELD:
        return None
    return ValidationSplit(
        probe.train,
        probe.asked,
        probe.context,
        weight,
        places_of(probe.users, world.users),
        places_of(probe.texts, world.texts),
    )


def _as_asked(kinds: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Weight (N,) of labels of these kinds (N,) that gives each kind its share among ``asked`` (M,)."""
    there, here = (np.bincount(some, minlength=4) for some in (asked, kinds))
    weight = (there / np.maximum(here, 1))[kinds]
    return weight / max(weight.sum(), 1e-30)


def _random_trial(world: EvalDataset, seed: int) -> ValidationSplit:
    labels = world.train.labels.take(world.train.labels.decided)
    held = held_out(labels, seed)
    return ValidationSplit(
        world.train.with_labels(labels.take(~held)),
        labels.take(held),
        labels.take([]),
        np.full(held.sum(), 1 / max(held.sum(), 1)),
        np.arange(len(world.users)),
        np.arange(len(world.texts)),
    )


@dataclass(frozen=True)
class Chosen:
    """What a trial says that a peer is fitted with."""

    option: dict
    decay: float
    steps: int
    firm: float


def choose(make: Callable[..., UniformHead], peer: type[UniformHead], x: Tensor, trial: ValidationSplit) -> Chosen:
    """The option, the decay, the steps and the firmness of least validation log-loss, by one fit of each candidate.

    Args:
        make: a fresh peer for (known users, rows of all users in the dataset, option, number), each number a seed.
        x: (R_all, P) texts by row of the real world.
    """
    from copl_core.evaluation.peer_models import Labels

    if len(trial.weight) < FEWEST_HELD or not trial.train.labels.decided.any():
        return Chosen(peer.options[0], DECAYS[0], BLIND_STEPS, peer.firmness[0])
    x = x[trial.text_rows]
    tried = [
        (
            *Fitted(
                make(trial.train.n_users, trial.user_rows, option), x, Labels.of(trial.train.labels), decay
            ).until_best(trial),
            index,
            decay,
        )
        for (index, option), decay in product(enumerate(peer.options), DECAYS)
    ]
    _, steps, firm, index, decay = min(tried)
    return Chosen(peer.options[index], decay, steps, firm)


def averaged(make: Callable[..., UniformHead], chosen: Chosen, x: Tensor, world: EvalDataset) -> np.ndarray:
    """Log-odds (N,) of the asked labels: the mean of as many fits, each from its own seed, as CoPL's graph averages."""
    from copl_core.evaluation.peer_models import Labels

    train, everybody = world.train, np.arange(len(world.users))
    members = GraphConfig().sized(len(train.labels)).members
    return np.mean(
        [
            Fitted(make(train.n_users, everybody, chosen.option, number), x, Labels.of(train.labels), chosen.decay)
            .train(chosen.steps)
            .logits(world, chosen.firm)
            for number in range(members)
        ],
        axis=0,
    )


class Fitted:
    """A peer and its side terms in training on ``labels`` of texts ``x`` (R, P)."""

    def __init__(self, peer: UniformHead, x: Tensor, labels: Labels, decay: float) -> None:
        import torch

        from copl_core.evaluation.peer_models import FEW_LR

        self.peer, self.x, self.labels = peer, x, labels
        self.side = torch.zeros((), requires_grad=True)
        self.own_side = torch.zeros(peer.n_users, requires_grad=peer.personal)
        sides = [self.side, self.own_side] if peer.personal else [self.side]
        slow = [p for name, p in peer.named_parameters() if name not in peer.quick]
        quick = {"params": [getattr(peer, name) for name in peer.quick], "lr": FEW_LR}
        groups = [
            {"params": slow},
            quick | {"weight_decay": decay * LR / FEW_LR},  # the same pull a step
            {"params": sides, "weight_decay": 0},
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=LR, weight_decay=decay)

    def train(self, steps: int) -> Fitted:
        for _ in range(steps):
            self.step()
        return self

    def until_best(self, trial: ValidationSplit) -> tuple[float, int, float]:
        """Least log-loss on the trial's asked labels, the step it was met at, and with which firmness."""
        best, at, its_firm = math.inf, 0, self.peer.firmness[0]
        tried = self.peer.firmness if len(trial.context) else self.peer.firmness[:1]
        for step in range(1, MOST_STEPS + 1):
            self.step()
            if step % LOOK_EVERY == 0:
                loss, place = min((self.loss_on(trial, firm), place) for place, firm in enumerate(tried))
                if loss < best - 1e-5:
                    best, at, its_firm = loss, step, tried[place]
                elif step - at >= PATIENCE * LOOK_EVERY:
                    break
        return best, at, its_firm

    def step(self) -> None:
        import torch

        self.peer.train()
        texts, told, asked = self.peer.read(self.x), self.labels, self.labels
        if self.peer.splits:
            speaks = torch.rand(len(self.labels)) < 0.5
            told, asked = self.labels.take(speaks), self.labels.take(~speaks)
        person, cost = self.peer.people(texts, told)
        loss = self._log_loss(texts, person, asked) + cost
        loss = loss + 0.5 * SIDE_PRECISION * self.own_side.square().sum() / len(self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def loss_on(self, trial: ValidationSplit, firm: float) -> float:
        return float(log_losses(self.logits(trial, firm), trial.test.outcome) @ trial.weight)

    def _log_loss(self, texts: Tensor, person: Tensor, labels: Labels) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = self.peer.margins(texts, person, labels) + self.side + self.own_side[labels.user]
        return binary_cross_entropy_with_logits(logits, labels.outcome)

    def logits(self, world: EvalDataset | ValidationSplit, firm: float) -> np.ndarray:
        """Log-odds (N,) of the asked labels of ``world``, whose training labels and texts were fitted: known people by
        their labels, new ones by the peer's own rule."""
        import torch

        from copl_core.evaluation.peer_models import Labels, counted_from

        n_known, n_new = self.peer.n_users, world.n_users - self.peer.n_users
        asked = world.test
        self.peer.eval()
        with torch.no_grad():
            texts = self.peer.read(self.x)
            person = self.peer.people(texts, self.labels)[0]
        given = counted_from(Labels.of(world.context.take(world.context.user >= n_known)), n_known)
        new = self.peer.newcomers(texts, given, n_new, float(self.side.detach()), firm)
        person = torch.cat([person, new]).detach()
        side = torch.cat([self.own_side, self.own_side.new_zeros(n_new)]).detach() + self.side.detach()
        everything = Labels(*(torch.from_numpy(c) for c in (asked.user, asked.left, asked.right, asked.outcome)))
        with torch.no_grad():
            return (self.peer.margins(texts, person, everything) + side[everything.user]).numpy()


def standardised(phi: np.ndarray, n_train: int) -> Tensor:
    """φ (R_all, P) float32 with the mean and scale of the first ``n_train`` rows, the texts of training."""
    import torch

    seen = phi[:n_train].astype(np.float64)
    scale = seen.std(0)
    x = (phi - seen.mean(0)) / np.where(scale > 1e-8, scale, 1.0)
    return torch.from_numpy(np.clip(x, -10, 10).astype(np.float32))


def held_out(labels: Comparisons, seed: int) -> np.ndarray:
    """Mask of the decided labels that are kept for validation: all that a user said about some responses."""
    labels = labels.take(labels.decided)
    return (draws("edge", labels.user, labels.left, labels.right, seed + 1) < HOLDOUT / 2).any(1)


def membership(world: EvalDataset) -> Tensor:
    """(U_all, G) float32: one where a user is known to be of a group; files name it as ``taste``."""
    import torch

    names = sorted({group for group in world.groups if group is not None})
    if len(names) < 2:
        raise CoplError(
            f"group-oracle got labels of {len(names)} known groups and needs two: give rows a group, or leave it out."
        )
    return torch.tensor([[float(group == name) for name in names] for group in world.groups])
