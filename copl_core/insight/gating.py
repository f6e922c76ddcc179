"""Which expert serves whom, and what each expert does: gate weights, load, explanations.  Numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SERVING = {  # which experts serve a user, in words, by the routing of the reward model
    "top1": "the expert with the largest weight serves the person, as strongly as this weight says",
    "top2": "the two experts with the largest weights serve the person, in proportion to them",
    "soft": "all experts serve the person, each as strongly as its weight says",
}
_DRAWS = 400  # of the bootstrap, and of the null distribution
_FEWEST_PROMPTS = 8  # that an interval needs


@dataclass(frozen=True, slots=True)
class Load:
    """How one gate spreads users over experts."""

    users: np.ndarray  # (M,) users whose top expert this is
    share: np.ndarray  # (M,) share of users, sums to 1
    entropy: float  # of ``share``, in bits; log2(M) when perfectly even
    dead: int  # experts that are the top expert of no user

    @property
    def factor(self) -> float:
        """The largest share over the smallest; infinite where an expert is dead."""
        return float(self.share.max() / self.share.min()) if self.share.min() > 0 else float("inf")


def load(gates: np.ndarray) -> Load:
    """Load from gate weights (N, M)."""
    counts = np.bincount(gates.argmax(1), minlength=gates.shape[1]) if len(gates) else np.zeros(gates.shape[1], int)
    share = counts / max(1, counts.sum())
    positive = share[share > 0]
    return Load(counts, share, float(-(positive * np.log2(positive)).sum()) + 0.0, int((counts == 0).sum()))


def by_group(gates: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, int, int], ...]]:
    """Order (N,) by group, within a group by top expert, and within an expert by decreasing weight.

    Args:
        gates: (N, M) weights.
        group: (N,); negative means none, and such users come last.

    Returns:
        the order, and (group, first row, row after the last) of each block of one group.
    """
    rank = np.where(group < 0, np.iinfo(np.int64).max, group)
    order = np.lexsort((-gates.max(1), gates.argmax(1), rank))
    if not len(order):
        return order, ()
    sorted_group = group[order]
    starts = np.flatnonzero(np.append(True, sorted_group[1:] != sorted_group[:-1]))
    ends = [*starts[1:], len(order)]
    return order, tuple((int(sorted_group[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True))


def between_two(gates: np.ndarray, most: int) -> list[tuple[int, int, int, float]]:
    """(row, first expert, second expert, gap) of the users with the smallest gaps between their two largest weights."""
    if gates.shape[1] < 2:
        return []
    top = np.argsort(-gates, axis=1, kind="stable")[:, :2]
    weight = np.take_along_axis(gates, top, 1)
    gap = weight[:, 0] - weight[:, 1]
    return [
        (int(row), int(top[row, 0]), int(top[row, 1]), float(gap[row])) for row in np.argsort(gap, kind="stable")[:most]
    ]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Correlation between what each of M experts changes and F measured features of the texts, with intervals."""

    r: np.ndarray  # (M, F); NaN where either does not vary
    low: np.ndarray  # (M, F) 95 %, for all features of an expert at once
    high: np.ndarray  # (M, F)
    n_texts: int
    n_prompts: int

    def certain(self, expert: int) -> list[int]:
        """Features whose interval lies on one side of zero, the strongest first."""
        clear = np.flatnonzero((self.low[expert] > 0) | (self.high[expert] < 0))
        return clear[np.argsort(-np.abs(self.r[expert, clear]), kind="stable")].tolist()


def centred(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Values (…, T) less the mean of their prompt: rewards are only compared within a prompt."""
    _, index = np.unique(prompts, return_inverse=True)
    same = (index[:, None] == np.arange(index.max(initial=-1) + 1)).astype(float)  # (T, prompts)
    return values - (values @ same / same.sum(0))[..., index]


def explain(change: np.ndarray, features: np.ndarray, prompts: np.ndarray, rng: np.random.Generator) -> Explanation:
    """Which measured features correlate with what an expert changes, within prompts.

    Intervals are ``tanh(z ± c se)`` of Fisher's z = artanh r.  The standard error is the larger of two: that of a
    bootstrap over prompts, since texts of one prompt are not independent, and that of shuffling the changes within each
    prompt, the null distribution where no feature matters.  The null distribution also gives c, one per expert, as the
    95 % quantile of the largest |z| / se of any feature: the intervals of an expert hold for all features at once.

    Args:
        change: (M, T) what each expert adds to the reward of the shared model.
        features: (T, F).
        prompts: (T,) prompt of each text.
    """
    y, x = centred(change, prompts), centred(features.T.astype(float), prompts)  # (M, T), (F, T)
    units, index = np.unique(prompts, return_inverse=True)
    xx, yy = (x**2).sum(1), (y**2).sum(1)
    r = _correlation(y @ x.T, xx, yy[:, None])
    if len(units) < _FEWEST_PROMPTS:
        return Explanation(r, np.full_like(r, -1.0), np.full_like(r, 1.0), len(prompts), len(units))
    z = _fisher(r)
    null = _fisher(_correlation(_shuffled(y, index, rng) @ x.T, xx, yy[:, None]))  # (B, M, F)
    by_chance = null.std(0)
    critical = np.quantile((np.abs(null) / np.maximum(by_chance, 1e-9)).max(2), 0.95, axis=0)  # (M,)
    half = critical[:, None] * np.maximum(by_chance, (_fisher(_resampled(y, x, index, rng)) - z).std(0))
    known = np.isfinite(r)
    return Explanation(
        r, np.where(known, np.tanh(z - half), -1.0), np.where(known, np.tanh(z + half), 1.0), len(prompts), len(units)
    )


def _shuffled(y: np.ndarray, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``y`` (M, T) with the texts of each prompt in random order, (B, M, T)."""
    order = np.argsort(index, kind="stable")
    out = np.empty((_DRAWS, *y.shape))
    for draw in range(_DRAWS):
        out[draw][:, order] = y[:, np.lexsort((rng.random(len(index)), index))]
    return out


def _resampled(y: np.ndarray, x: np.ndarray, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Correlations (B, M, F) of bootstrap samples over prompts."""
    member = (index == np.arange(index.max() + 1)[:, None]).astype(float)  # (P, T)
    xy = np.einsum("pt,mt,ft->pmf", member, y, x, optimize=True)
    drawn = rng.multinomial(len(member), np.full(len(member), 1 / len(member)), _DRAWS).astype(float)  # (B, P)
    products = (drawn @ xy.reshape(len(xy), -1)).reshape(_DRAWS, *xy.shape[1:])
    return _correlation(products, (drawn @ (member @ (x**2).T))[:, None], (drawn @ (member @ (y**2).T))[:, :, None])


def _correlation(xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Correlation from sums of products that broadcast; NaN where either side does not vary."""
    size = np.sqrt(xx * yy)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size > 1e-9, xy / size, np.nan)


def _fisher(r: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(np.nan_to_num(r), -0.9999, 0.9999))
