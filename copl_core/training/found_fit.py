"""The fit of found features (``insight.found_features``): what they add to the counted ones, and which groups prefer
which.

The gain and the features take seconds, so a full job finds them, from a bounded sample of labels.  Each later graph job
keeps them and looks at its own groups again, in a tenth of a second.  Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from copl_core.features import FEATURE_NAMES
from copl_core.ids import rows_of
from copl_core.insight import describe
from copl_core.insight.found_features import (
    Dictionary,
    FoundFeatures,
    Split,
    examples,
    find_in,
    gain_over_counted,
)
from copl_core.insight.layout import Layout
from copl_core.records import Comparisons, TrainingData
from copl_core.training.split import split_by_edge

FEWEST = 100  # held-out labels
SPLITS = 3
_SHARE = 0.3  # of each user's responses, held out
USERS, PER_USER, LABELS = 1000, 400, 20_000  # that are read at most; of more, always the same sample


def fit_found(
    data: TrainingData, phi: np.ndarray, progress: Callable[[int, int], None] = lambda done, total: None
) -> FoundFeatures | None:
    """What found features add to the counted ones, and the features where that is certain; without groups.

    None with too few labels, or where φ has counted features alone.

    Args:
        phi: (R, P) of all texts of ``data``.
        progress: called with (splits done, splits); what it raises ends the fit.
    """
    data, phi = sampled(data, phi)
    splits = nested_splits(data, SPLITS)
    encoder, counted = parts_of(phi)
    enough = sum(int(split.test.sum()) for split in splits) >= FEWEST
    if not (enough and encoder.shape[1] and all(split.inner_test.any() for split in splits)):
        return None
    labels = data.labels
    gain = gain_over_counted(counted, encoder, labels, data.n_users, splits, progress)
    if not gain.certain:
        nothing = Dictionary(np.zeros((0, encoder.shape[1])), 0)
        return FoundFeatures(gain, data.n_responses, len(labels), nothing, np.zeros((0, 0, 2), np.int64), {})
    dictionary = find_in(encoder, labels, np.ones(len(labels), bool))
    pairs = np.unique(np.stack([labels.left, labels.right], 1), axis=0)
    codes = dictionary.codes(encoder[pairs[:, 0]] - encoder[pairs[:, 1]])
    shown = np.append(data.response_ids, -1)[examples(codes, pairs, data.response_prompt)]
    return FoundFeatures(gain, data.n_responses, len(labels), dictionary, shown, {})


def with_groups(
    found: FoundFeatures | None, layout: Layout, data: TrainingData, phi: np.ndarray
) -> FoundFeatures | None:
    """The features with what each group of a map prefers with certainty more than the others, strongest first.

    None where φ (R, P) has another width than the one in which the features were found.
    """
    width = phi.shape[1] - len(FEATURE_NAMES)
    if found is None or found.dictionary.directions.shape[1] != width:
        return None
    if not found.gain.certain:
        return found
    data, phi = sampled(data, phi)
    labels, encoder = data.labels, parts_of(phi)[0]
    codes = found.dictionary.codes(encoder[labels.left] - encoder[labels.right])
    chosen = codes * np.where(labels.outcome > 0.5, 1, -1)[:, None] / np.sqrt((codes**2).mean(0) + 1e-300)
    leaning, counts = describe.user_means(labels.user, chosen, data.n_users)
    row = rows_of(data.user_ids, layout.user_ids)
    group = np.where((row >= 0) & (counts > 0), layout.group[row], -1)
    groups = {}
    for number in np.unique(group[group >= 0]).tolist():
        inside = (group == number)[group >= 0]
        n, rng = int(counts[group == number].sum()), np.random.default_rng(number)
        contrast = describe.contrast(leaning[group >= 0], inside, n, rng)
        if contrast is not None:
            order = np.argsort(-np.abs(contrast.d), kind="stable").tolist()
            groups[number] = tuple((f, float(contrast.d[f])) for f in order if contrast.certain[f])
    return replace(found, groups=groups)


def sampled(data: TrainingData, phi: np.ndarray) -> tuple[TrainingData, np.ndarray]:
    """The decided labels of some users, as training data of their texts alone, and φ of these.

    At most ``LABELS`` of at most ``USERS`` users, ``PER_USER`` of each.
    """
    rows = _sampled_rows(data.labels, data.n_users)
    labels = data.labels.take(rows)
    texts, sides = np.unique(np.stack([labels.left, labels.right]), return_inverse=True)
    left, right = sides.reshape(2, -1)
    some = replace(
        data,
        response_ids=data.response_ids[texts],
        response_prompt=data.response_prompt[texts],
        responses=tuple(data.responses[text] for text in texts.tolist()),
        labels=replace(labels, left=left, right=right),
    )
    return some, phi[texts]


def _sampled_rows(labels: Comparisons, n_users: int) -> np.ndarray:
    """Rows (N,) of the sampled labels, in order; of a large study, only the drawn users' are sorted."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(np.unique(labels.user))[:USERS]
    among = np.zeros(n_users, bool)
    among[drawn] = True
    rows = rng.permutation(np.flatnonzero(among[labels.user] & labels.decided))
    rows = rows[np.argsort(labels.user[rows], kind="stable")]  # by user, in random order within one
    _, start, count = np.unique(labels.user[rows], return_index=True, return_counts=True)
    rows = rows[np.arange(len(rows)) - np.repeat(start, count) < PER_USER]
    count = np.bincount(labels.user[rows], minlength=n_users)
    among[drawn] = np.cumsum(count[drawn]) <= LABELS
    return np.sort(rows[among[labels.user[rows]]])


def parts_of(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ (R, P) as the encoder's coordinates (R, E) and the standardised counted features (R, F)."""
    style = phi[:, -len(FEATURE_NAMES) :].astype(np.float64)
    if not len(style):
        return phi[:, : -len(FEATURE_NAMES)], style
    spread = style.std(0)
    return phi[:, : -len(FEATURE_NAMES)], (style - style.mean(0)) / np.where(spread > 1e-6, spread, 1)


def nested_splits(data: TrainingData, n: int) -> list[Split]:
    """Splits by user–response edge, each with an inner one of the learned labels."""
    made = []
    for number in range(n):
        learned, test = split_by_edge(data, _SHARE, number)
        rows = np.flatnonzero(learned)
        inner = np.zeros((2, len(learned)), bool)
        inside = split_by_edge(data.with_labels(data.labels.take(rows)), _SHARE, n + number)
        for mask, own in zip(inner, inside, strict=True):
            mask[rows[own]] = True
        made.append(Split(learned, test, *inner))
    return made
