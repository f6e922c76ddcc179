"""The published peers as methods of ``evaluate``: fitted to a world, they give log-odds of left for the asked labels.

    uniform       the reward model of CoPL with no experts: one LoRA in the same backbone, the same labels and the same
                  budget of time, one reward for everybody
    uniform-head, i2e, vpl, pal, lore, group-oracle
                  the peers of ``peer_models``, on frozen text states

The latter are fitted alike: Bradley–Terry with the screen side as a nuisance (γ for all, and γ_u with a Gaussian prior
where the peer tells people apart), AdamW on all labels at once, and the few options of a peer, its weight decay and
its number of steps chosen on validation labels, a part of the training labels; then all training labels are fitted
with what was chosen.  No asked label is ever read before it is asked.  Whoever is new gets γ_u = 0.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from copl_core.config import Settings
from copl_core.records import Comparisons, CoplError
from copl_core.training.split import uniform

if TYPE_CHECKING:
    from torch import Tensor

    from copl_core.training.methods import Embed, Method
    from copl_core.training.peer_models import Labels, UniformHead
    from copl_core.training.world import World

HEADS = {"uniform-head": "UniformHead", "i2e": "I2E", "vpl": "VPL", "pal": "PAL", "lore": "LoRe",
         "group-oracle": "GroupOracle"}
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
    def run(world: World, embed: Embed, seed: int) -> np.ndarray:
        import torch

        from copl_core.training import peer_models

        peer = getattr(peer_models, HEADS[name])
        given = {"member": membership(world)} if name == "group-oracle" else {}
        x = standardised(embed(), world.train.n_responses)
        learn = peer_models.Labels.of(world.train.labels)

        def make(option: dict) -> UniformHead:
            torch.manual_seed(seed)
            return peer(x.shape[1], world.train.n_users, **option, **given)

        with torch.random.fork_rng():
            fitted = choose(make, peer.options, x, learn, held_out(world.train.labels, seed))
            return fitted.logits(x, learn, world)

    return run


def uniform_reward(world: World, embed: Embed, seed: int, settings: Settings | None = None) -> np.ndarray:
    """One LoRA in the reward backbone for everybody, through the very code and budget of the personalised one.

    Args:
        settings: device, backbone and budget of seconds (0: none); those of the environment unless given.
    """
    from copl_core.reward.model import RewardConfig
    from copl_core.training.reward_fit import fit_reward
    from copl_core.weights import resolver

    settings = settings or Settings.from_environment()
    model = fit_reward(world.train, np.zeros((world.train.n_users, 1), np.float32),
                       RewardConfig.for_backbone(settings.backbone, n_experts=0), weights=resolver(settings.weights),
                       seed=seed, device=settings.device, time_budget_s=settings.reward_budget_seconds or None)
    asked = world.asked
    used, place = np.unique(np.stack([asked.left, asked.right]), return_inverse=True)
    rewards = model.rewards([world.texts[row] for row in used], np.zeros((1, 1), np.float32))[0]
    left, right = place.reshape(2, -1)
    return (rewards[left] - rewards[right] + model.metrics["side"]) / float(model.calibration)


PEERS: dict[str, Method] = {"uniform": uniform_reward} | {name: _head(name) for name in HEADS}


def choose(make: Callable[[dict], UniformHead], options: tuple[dict, ...], x: Tensor, labels: Labels,
           held: np.ndarray) -> Fitted:
    """The peer with the options, the decay and the steps of least validation log-loss, fitted to all labels."""
    import torch

    kept = torch.from_numpy(held)
    seen, asked = labels.take(~kept), labels.take(kept)
    if len(asked) < FEWEST_HELD or not len(seen):
        return Fitted(make(options[0]), x, labels, DECAYS[0]).train(BLIND_STEPS)
    tried = [(*Fitted(make(option), x, seen, decay).until_best(asked), index, decay)
             for (index, option), decay in product(enumerate(options), DECAYS)]
    _, steps, index, decay = min(tried)
    return Fitted(make(options[index]), x, labels, decay).train(steps)


class Fitted:
    """A peer and its side terms in training on ``labels`` of texts ``x`` (R, P)."""

    def __init__(self, peer: UniformHead, x: Tensor, labels: Labels, decay: float) -> None:
        import torch

        from copl_core.training.peer_models import FEW_LR

        self.peer, self.x, self.labels = peer, x, labels
        self.side = torch.zeros((), requires_grad=True)
        self.own_side = torch.zeros(peer.n_users, requires_grad=peer.personal)
        sides = [self.side, self.own_side] if peer.personal else [self.side]
        slow = [p for name, p in peer.named_parameters() if name not in peer.quick]
        quick = {"params": [getattr(peer, name) for name in peer.quick], "lr": FEW_LR}
        groups = [{"params": slow}, quick | {"weight_decay": decay * LR / FEW_LR},  # the same pull a step
                  {"params": sides, "weight_decay": 0}]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=LR, weight_decay=decay)

    def train(self, steps: int) -> Fitted:
        for _ in range(steps):
            self.step()
        return self

    def until_best(self, asked: Labels) -> tuple[float, int]:
        """Least log-loss of ``asked``, and the step it was met at."""
        best, at = math.inf, 0
        for step in range(1, MOST_STEPS + 1):
            self.step()
            if step % LOOK_EVERY == 0:
                loss = self.loss_of(asked)
                if loss < best - 1e-5:
                    best, at = loss, step
                elif step - at >= PATIENCE * LOOK_EVERY:
                    break
        return best, at

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

    def loss_of(self, asked: Labels) -> float:
        import torch

        self.peer.eval()
        with torch.no_grad():
            texts = self.peer.read(self.x)
            return float(self._log_loss(texts, self.peer.people(texts, self.labels)[0], asked))

    def _log_loss(self, texts: Tensor, person: Tensor, labels: Labels) -> Tensor:
        from torch.nn.functional import binary_cross_entropy_with_logits

        logits = self.peer.margins(texts, person, labels) + self.side + self.own_side[labels.user]
        return binary_cross_entropy_with_logits(logits, labels.outcome)

    def logits(self, x: Tensor, known: Labels, world: World) -> np.ndarray:
        """Log-odds (N,) of the asked labels: known people by their labels, new ones by the peer's own rule."""
        import torch

        from copl_core.training.peer_models import Labels, counted_from

        n_known, n_new = self.peer.n_users, len(world.users) - self.peer.n_users
        asked = world.asked
        self.peer.eval()
        texts = self.peer.read(x).detach()
        given = counted_from(Labels.of(world.context.take(world.context.user >= n_known)), n_known)
        with torch.no_grad():
            person = self.peer.people(texts, known)[0]
        person = torch.cat([person, self.peer.newcomers(texts, given, n_new)]).detach()
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
    salt = np.full(len(labels), seed + 1)
    drawn = np.minimum(uniform(salt, labels.user, labels.left), uniform(salt, labels.user, labels.right))
    return drawn < HOLDOUT / 2


def membership(world: World) -> Tensor:
    """(U_all, G) float32: one where a user is known to be of a group; files name it as ``taste``."""
    import torch

    names = sorted({group for group in world.groups if group is not None})
    if len(names) < 2:
        raise CoplError(f"group-oracle got labels of {len(names)} known groups and needs two: give rows a group, "
                        "or leave it out.")
    return torch.tensor([[float(group == name) for name in names] for group in world.groups])
