"""Synthetic studies with a known truth: groups of users with the same preferences, after the protocol of CoPL.

arXiv 2503.01658, section 5: UF-P-2 and UF-P-4 have 10,000 users in two or four groups of equal size, and each group has
its own preferences.  A user labels 8 or 16 pairs (ALL: every user exactly as many; AVG: as many on average, uniformly
from 1 to twice that number less 1), drawn without repetition from the pairs of about 16,000 responses.  A pair is
*common* if all groups prefer the same response, otherwise *controversial*.

Here the preferences of group g are a utility per response, ``u_g(r) = √(1−δ) q(r) + √δ t_g(r)`` with q and t standard
normal: δ (``divergence``) is how far groups differ, from 0, not at all, to 1, independent.  A label is the truth of its
user's group, flipped with probability ``noise``.  numpy only; one seed determines everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.training.metrics import correct


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a world is made.  The settings are checked when the protocol is made."""

    groups: int = 4
    users: int = 10_000
    prompts: int = 8_000
    responses: int = 2  # per prompt; all pairs within a prompt can be labelled
    labels: int = 16  # per user
    spread: str = "ALL"  # "ALL": every user gives ``labels``; "AVG": 1 to 2·labels − 1, uniformly
    repeats: int = 0  # of a user's pairs, labelled once more by them, with new noise and positions
    test: int = 10  # test pairs per user, none of which they labelled
    divergence: float = 0.7  # δ: 0 same preferences in all groups, 1 independent ones
    noise: float = 0.0  # share of labels that are flipped
    imbalance: float = 1.0  # size of the largest group over the smallest; sizes fall geometrically
    text: str = "random"  # "random": φ is noise; "informative": φ holds the utilities, with noise
    text_dim: int = 16  # P

    def __post_init__(self) -> None:
        least = {
            "groups": 1,
            "users": self.groups,
            "prompts": 1,
            "responses": 2,
            "labels": 1,
            "test": 0,
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
        if self.most + self.test > self.pairs:
            raise CoplError(
                f"A user of this synthetic world needs {self.most + self.test} different pairs and it has "
                f"{self.pairs}: use fewer labels, or more prompts."
            )

    @classmethod
    def uf_p(cls, groups: int, spread: str = "ALL", **more: Any) -> Protocol:
        """UF-P-2 (8 labels per user) or UF-P-4 (16) of the paper; ``more`` changes single settings."""
        if groups not in (2, 4):
            raise CoplError(f"UF-P-{groups} is unknown: the paper has UF-P-2 and UF-P-4.")
        settings: dict[str, Any] = {"groups": groups, "labels": 4 * groups, "spread": spread}
        return cls(**(settings | more))

    @property
    def pairs(self) -> int:
        """Number of different pairs."""
        return self.prompts * self.responses * (self.responses - 1) // 2

    @property
    def most(self) -> int:
        """Largest possible number of labels of a user."""
        return self.labels if self.spread == "ALL" else 2 * self.labels - 1


@dataclass(frozen=True, slots=True)
class SyntheticWorld:
    """Labels to learn from, and the truth about pairs that their users did not label."""

    data: TrainingData
    phi: np.ndarray  # (R, P) text embeddings
    group: np.ndarray  # (U,) int64
    utility: np.ndarray  # (G, R) float32
    test: Comparisons  # (T,) outcomes are the truth, without noise
    controversial: np.ndarray  # (T,) bool

    def figures(self, logits: np.ndarray) -> dict[str, float]:
        """Accuracy of the log-odds (T,) of left on all test pairs, on common and on controversial ones, and in the
        worst group; NaN without test pairs.
        """
        hit = correct(logits, self.test.outcome)
        group = self.group[self.test.user]
        of = {"accuracy": np.ones(len(hit), bool), "common": ~self.controversial, "controversial": self.controversial}
        by_group = [hit[group == g].mean() for g in np.unique(group)]
        return {name: float(hit[rows].mean()) if rows.any() else float("nan") for name, rows in of.items()} | {
            "worst_group": float(min(by_group, default=float("nan")))
        }


def make_world(protocol: Protocol, seed: int) -> SyntheticWorld:
    """A world of the protocol; the same seed gives the same world."""
    rng = np.random.default_rng(seed)
    n_responses = protocol.prompts * protocol.responses
    utility = _utilities(protocol, n_responses, rng)
    group = _groups(protocol, rng)
    n_labels = (
        np.full(protocol.users, protocol.labels)
        if protocol.spread == "ALL"
        else rng.integers(1, 2 * protocol.labels, protocol.users)
    )
    drawn = _distinct(rng, protocol.users, protocol.pairs, protocol.most + protocol.test)
    is_label = np.arange(protocol.most) < n_labels[:, None]  # (U, most)
    again = is_label & (np.arange(protocol.most) < protocol.repeats)
    user = np.concatenate([np.nonzero(is_label)[0], np.nonzero(again)[0]])
    pair = np.concatenate([drawn[:, : protocol.most][is_label], drawn[:, : protocol.most][again]])
    labels = _compare(protocol, utility, group, user, pair, rng)
    test = _compare(
        protocol,
        utility,
        group,
        np.repeat(np.arange(protocol.users), protocol.test),
        drawn[:, protocol.most :].ravel(),
        rng,
    )
    flipped = rng.random(len(labels)) < protocol.noise
    labels.outcome[flipped] = 1 - labels.outcome[flipped]
    data = TrainingData(
        user_ids=np.arange(protocol.users),
        response_ids=np.arange(n_responses),
        response_prompt=np.repeat(np.arange(protocol.prompts), protocol.responses),
        prompts=tuple(f"Question {i}?" for i in range(protocol.prompts)),
        responses=tuple(f"Answer {i}." for i in range(n_responses)),
        labels=labels,
    )
    left_wins = utility[:, test.left] > utility[:, test.right]  # (G, T)
    return SyntheticWorld(
        data,
        _texts(protocol, utility, rng),
        group,
        utility,
        test,
        np.any(left_wins, axis=0) & ~np.all(left_wins, axis=0),
    )


def _utilities(protocol: Protocol, n_responses: int, rng: np.random.Generator) -> np.ndarray:
    shared = rng.standard_normal(n_responses, np.float32)
    own = rng.standard_normal((protocol.groups, n_responses), np.float32)
    return np.float32((1 - protocol.divergence) ** 0.5) * shared + np.float32(protocol.divergence**0.5) * own


def _groups(protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Group of each user (U,), with sizes that fall geometrically from the first group to the last.  No group is empty:
    an empty one takes a user from the largest."""
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
    """The true labels of users on pairs (N,), shown in random positions."""
    within = np.array(list(combinations(range(protocol.responses), 2)))  # (pairs per prompt, 2)
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
