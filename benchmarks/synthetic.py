"""Worlds with a known truth: groups of people who agree among themselves, after the protocol of CoPL's experiments.

arXiv 2503.01658, section 5: UF-P-2 and UF-P-4 have 10,000 users in two or four groups of equal size, each group with a
taste of its own; a user labels 8 or 16 pairs (ALL: everybody as many; AVG: as many on average, uniformly from one to
twice that less one), drawn without repetition from the pairs of about 16,000 responses.  A pair is *common* where all
groups prefer the same side and *controversial* where they do not.

Here the taste of group g is a utility a response, ``u_g(r) = √(1−δ) q(r) + √δ t_g(r)`` with q and t standard normal: δ
(``divergence``) is how far groups differ, from nowhere to independently.  A label is the truth of its user's group,
turned round with probability ``noise``.  numpy only, everything from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.metrics import correct


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a world is made.  Checked at birth."""

    groups: int = 4
    users: int = 10_000
    prompts: int = 8_000
    responses: int = 2  # a prompt; all pairs within a prompt can be asked
    labels: int = 16  # a user
    spread: str = "ALL"  # "ALL": everybody makes ``labels``; "AVG": 1 to 2·labels − 1, uniformly
    repeats: int = 0  # of a user's labels, asked once more of them, with new noise and sides
    asked: int = 10  # pairs a user, none of which they labelled, that the truth is asked about
    divergence: float = 0.7  # δ: 0 one taste for all, 1 independent tastes
    noise: float = 0.0  # share of labels turned round
    imbalance: float = 1.0  # users of the largest group for one of the smallest; those between fall geometrically
    text: str = "random"  # "random": φ tells nothing; "informative": φ holds the utilities under noise
    text_dim: int = 16  # P

    def __post_init__(self) -> None:
        least = {
            "groups": 1,
            "users": self.groups,
            "prompts": 1,
            "responses": 2,
            "labels": 1,
            "asked": 0,
            "repeats": 0,
            "text_dim": 1,
        }
        for name, smallest in least.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < smallest:
                raise CoplError(
                    f"The synthetic world's {name} is {getattr(self, name)!r}: "
                    f"a whole number from {smallest} is needed."
                )
        for name in ("divergence", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise CoplError(
                    f"The synthetic world's {name} is {getattr(self, name)!r}: a number from 0 to 1 is needed."
                )
        if not 1 <= self.imbalance < np.inf:
            raise CoplError(f"The synthetic world's imbalance is {self.imbalance!r}: a finite number from 1 is needed.")
        for name, known in (("spread", ("ALL", "AVG")), ("text", ("random", "informative"))):
            if getattr(self, name) not in known:
                raise CoplError(
                    f"The synthetic world's {name} is {getattr(self, name)!r}: {' or '.join(known)} is needed."
                )
        if self.most + self.asked > self.pairs:
            raise CoplError(
                f"A user of this world would meet {self.most + self.asked} different pairs and it has "
                f"{self.pairs}: ask for fewer labels, or for more prompts."
            )

    @classmethod
    def uf_p(cls, groups: int, spread: str = "ALL", **more) -> Protocol:
        """UF-P-2 (8 labels a user) or UF-P-4 (16) of the paper; ``more`` changes single settings."""
        if groups not in (2, 4):
            raise CoplError(f"UF-P-{groups} was asked for: the paper has UF-P-2 and UF-P-4.")
        return cls(**({"groups": groups, "labels": 4 * groups, "spread": spread} | more))

    @property
    def pairs(self) -> int:
        """Different pairs of the world."""
        return self.prompts * self.responses * (self.responses - 1) // 2

    @property
    def most(self) -> int:
        """Labels of the user who makes most."""
        return self.labels if self.spread == "ALL" else 2 * self.labels - 1


@dataclass(frozen=True, slots=True)
class SyntheticWorld:
    """Labels to learn from, and the truth about pairs their users never saw."""

    data: TrainingData
    phi: np.ndarray  # (R, P) text embeddings
    group: np.ndarray  # (U,) int64
    utility: np.ndarray  # (G, R) float32
    asked: Comparisons  # (A,) outcomes are the truth, without noise
    controversial: np.ndarray  # (A,) bool

    def figures(self, logits: np.ndarray) -> dict[str, float]:
        """Accuracy of log-odds (A,) for left on all asked pairs, common and controversial ones, and the worst group;
        NaN where nothing is asked.
        """
        hit = correct(logits, self.asked.outcome)
        group = self.group[self.asked.user]
        of = {"accuracy": np.ones(len(hit), bool), "common": ~self.controversial, "controversial": self.controversial}
        by_group = [hit[group == g].mean() for g in np.unique(group)]
        return {name: float(hit[rows].mean()) if rows.any() else float("nan") for name, rows in of.items()} | {
            "worst_group": float(min(by_group, default=float("nan")))
        }


def make_world(protocol: Protocol, seed: int) -> SyntheticWorld:
    """A world of the protocol; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    n_responses = protocol.prompts * protocol.responses
    utility = _utilities(protocol, n_responses, rng)
    group = _groups(protocol, rng)
    n_labels = (
        np.full(protocol.users, protocol.labels)
        if protocol.spread == "ALL"
        else rng.integers(1, 2 * protocol.labels, protocol.users)
    )
    drawn = _distinct(rng, protocol.users, protocol.pairs, protocol.most + protocol.asked)
    is_label = np.arange(protocol.most) < n_labels[:, None]  # (U, most)
    again = is_label & (np.arange(protocol.most) < protocol.repeats)
    user = np.concatenate([np.nonzero(is_label)[0], np.nonzero(again)[0]])
    pair = np.concatenate([drawn[:, : protocol.most][is_label], drawn[:, : protocol.most][again]])
    labels = _compare(protocol, utility, group, user, pair, rng)
    asked = _compare(
        protocol,
        utility,
        group,
        np.repeat(np.arange(protocol.users), protocol.asked),
        drawn[:, protocol.most :].ravel(),
        rng,
    )
    turned = rng.random(len(labels)) < protocol.noise
    labels.outcome[turned] = 1 - labels.outcome[turned]
    data = TrainingData(
        user_ids=np.arange(protocol.users),
        response_ids=np.arange(n_responses),
        response_prompt=np.repeat(np.arange(protocol.prompts), protocol.responses),
        prompts=tuple(f"Question {i}?" for i in range(protocol.prompts)),
        responses=tuple(f"Answer {i}." for i in range(n_responses)),
        labels=labels,
    )
    left_wins = utility[:, asked.left] > utility[:, asked.right]  # (G, A)
    return SyntheticWorld(
        data, _texts(protocol, utility, rng), group, utility, asked, left_wins.any(0) & ~left_wins.all(0)
    )


def _utilities(protocol: Protocol, n_responses: int, rng: np.random.Generator) -> np.ndarray:
    shared = rng.standard_normal(n_responses, np.float32)
    own = rng.standard_normal((protocol.groups, n_responses), np.float32)
    return np.float32((1 - protocol.divergence) ** 0.5) * shared + np.float32(protocol.divergence**0.5) * own


def _groups(protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Group of each user (U,), of sizes that fall geometrically from the first to the last; none is empty: one that
    would be takes a user of the largest."""
    share = protocol.imbalance ** np.linspace(1, 0, protocol.groups)
    ends = np.round(np.cumsum(share) / share.sum() * protocol.users).astype(np.int64)
    size = np.diff(ends, prepend=0)
    for empty in np.flatnonzero(size == 0):
        size[[size.argmax(), empty]] += [-1, 1]
    return rng.permutation(np.repeat(np.arange(protocol.groups), size))


def _distinct(rng: np.random.Generator, rows: int, high: int, count: int) -> np.ndarray:
    """(rows, count) whole numbers below ``high``, all different within a row."""
    if 4 * count > high:
        return rng.random((rows, high)).argsort(1)[:, :count]
    drawn = rng.integers(high, size=(rows, count))
    again = np.arange(rows)
    while len(again):
        sorted_ = np.sort(drawn[again], 1)
        again = again[(sorted_[:, 1:] == sorted_[:, :-1]).any(1)]
        drawn[again] = rng.integers(high, size=(len(again), count))
    return drawn


def _compare(
    protocol: Protocol,
    utility: np.ndarray,
    group: np.ndarray,
    user: np.ndarray,
    pair: np.ndarray,
    rng: np.random.Generator,
) -> Comparisons:
    """What users truly say of pairs (N,), shown on random sides."""
    within = np.array(list(combinations(range(protocol.responses), 2)))  # (pairs a prompt, 2)
    prompt, which = np.divmod(pair, len(within))
    both = prompt[:, None] * protocol.responses + within[which]  # (N, 2)
    swap = rng.integers(2, size=len(pair))
    row = np.arange(len(pair))
    left, right = both[row, swap], both[row, 1 - swap]
    of = group[user]
    return Comparisons.build(user, left, right, utility[of, left] > utility[of, right])


def _texts(protocol: Protocol, utility: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((utility.shape[1], protocol.text_dim), np.float32)
    if protocol.text == "random":
        return noise
    reading = rng.standard_normal((protocol.groups, protocol.text_dim), np.float32)
    return utility.T @ reading + noise
