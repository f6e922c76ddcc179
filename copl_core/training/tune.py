"""Choose the precision of a study's priors, and how far its layers may move, on the study's own labels.

Studies differ.  With a few hundred labels whose users differ in style, weak priors whose precision rises when needed
predict best; with pairs made from ratings of a common list, strong priors that stay constant.  If users form groups of
similar preferences, layers have to move; if each user differs in their own way, less.  The choice uses test labels that
are apart from the learned ones *for each user*: both responses are new to that user.  A random split would mislead,
since pairs made from ratings imply one another (a ≻ b and b ≻ c imply a ≻ c) and overfitting would look like skill.

A few hundred labels separate good candidates from bad ones, but hardly the best from the second best.  Where fits are
short, the candidates are therefore compared on several splits, and after each split the worse half is dropped
(successive halving).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from copl_core.preference.config import FULL_STRENGTH_MESSAGES, FitSchedule, GraphConfig
from copl_core.records import Comparisons, CoplError, RankLost, TrainingData
from copl_core.training.graph_parts import GraphRanks
from copl_core.training.metrics import measures
from copl_core.training.progress import Progress
from copl_core.training.split import hold_out

FACTORS = (1 / 3, 1.0, 4.0, 10.0)  # on the configured precision of the priors
MIN_TEST_LABELS = 150  # decided test labels; with fewer the configured priors are kept
MAX_LABELS = 2_000_000  # with more the configured priors are kept, since every candidate takes minutes
N_SPLITS = 2
ONE_SPLIT = 20_000  # labels from which one split is enough
REPORT_EVERY = 1.0  # seconds between two reports of one fit
TEST_SHARE = 0.4  # of each user's responses, held out from the candidates
SALT = 81  # of the first split
SPLITS = (N_SPLITS, TEST_SHARE, SALT)  # another choice has compared candidates on other labels


def tuned(
    data: TrainingData,
    phi: np.ndarray,
    config: GraphConfig,
    *,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    known: Sequence[float] = (),
    keep: Callable[[list[float]], None] | None = None,
    ranks: GraphRanks | None = None,
) -> GraphConfig:
    """The configuration that predicts best, of a few architectures, each with its priors at several precisions.

    Fits one member per candidate and split.

    Args:
        phi: (R, P) text embeddings, by response row.
        progress: receives ("choosing priors", fits done, fits, lowest log-loss so far).
        known: log-losses of the first fits, from the same choice before it was interrupted.
        keep: called after each fit with the log-losses of all fits so far.
        ranks: processes that fit together with this one.
    """
    config = config.sized(len(data.labels))  # a split has fewer labels and must be fitted in the same way
    n_splits = 1 if len(data.labels) > ONE_SPLIT else N_SPLITS
    splits = [_split(data, number) for number in range(n_splits)]
    if min(test.sum() for _, test in splits) < MIN_TEST_LABELS or len(data.labels) > MAX_LABELS:
        return config
    losses: dict[GraphConfig, list[float]] = {candidate: [] for candidate in _candidates(config)}
    left, n_fits, found = list(losses), _n_fits(len(losses), len(splits)), list[float]()
    report = _reporter(progress, found, n_fits)
    for learned, test in splits:
        train, test_labels = data.with_labels(data.labels.take(learned)), data.labels.take(test)
        for candidate in left:
            report()
            if len(found) < len(known):
                found.append(known[len(found)])
            else:
                found.append(_log_loss(train, test_labels, phi, candidate, seed, device, report, ranks))
                if keep is not None:
                    keep(found)
            losses[candidate].append(found[-1])
        left = sorted(left, key=lambda candidate: float(np.mean(losses[candidate])))[: _half(len(left))]
    return left[0]


def _reporter(progress: Progress | None, found: list[float], n_fits: int) -> Callable[..., None]:
    """A callback that reports the state of the choice, whatever its arguments: once per fit, and every ``REPORT_EVERY``
    seconds during one.  An exception from ``progress`` ends the choice."""
    last: tuple[int, float] = (-1, 0.0)

    def report(*_: object) -> None:
        nonlocal last
        now = time.monotonic()
        if progress is not None and (len(found) > last[0] or now - last[1] >= REPORT_EVERY):
            last = len(found), now
            progress("choosing priors", len(found), n_fits, min(found, default=None))

    return report


def _log_loss(
    train: TrainingData,
    test: Comparisons,
    phi: np.ndarray,
    candidate: GraphConfig,
    seed: int,
    device: str,
    report: Callable[..., None],
    ranks: GraphRanks | None,
) -> float:
    """Log-loss on the labels ``test`` of one member fitted to ``train``; infinite if the training breaks down."""
    from copl_core.training.graph_fit import fit_graph

    try:
        own = candidate.with_settings(members=1)
        state = fit_graph(train, phi, own, seed=seed, device=device, progress=report, ranks=ranks)
    except RankLost:
        raise
    except CoplError:
        return math.inf
    return measures(state.label_log_odds(test), test.outcome)["log_loss"]


def _split(data: TrainingData, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,) of the labels that candidates learn from, and of the decided test labels."""
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    learned, test = hold_out(*ids, TEST_SHARE, SALT + number)
    return learned, test & labels.decided


def _half(n: int) -> int:
    return -(-n // 2)


def _n_fits(candidates: int, splits: int) -> int:
    """The number of fits of the successive halving."""
    return candidates + (_n_fits(_half(candidates), splits - 1) if splits > 1 else 0)


def _candidates(config: GraphConfig) -> list[GraphConfig]:
    """Every architecture tried, with every precision."""
    return [_scale_priors(tried, factor) for tried in _architectures_tried(config) for factor in FACTORS]


def _architectures_tried(config: GraphConfig) -> list[GraphConfig]:
    """Layers that stay near their start, or may move; each with a rising precision of the id prior, and with a constant
    one, under which a small group keeps its own preferences.  For a graph of many labels (``GraphConfig.sized``) these
    are decided, and the choice is between diagonal and full matrices."""
    architecture = config.architecture
    if architecture.layer != "copl" or architecture.n_layers == 0:
        return [config]
    if config.schedule.large > 0:
        return [
            config.with_settings(id_prior_growth=growth, **layers)
            for growth in (config.priors.id_prior_growth, 1.0)
            for layers in ({}, FULL_STRENGTH_MESSAGES)
        ]
    if architecture.mixing == "diagonal":
        return [config, config.with_settings(mixing="full", lr=FitSchedule().lr)]
    return [config]


def _scale_priors(config: GraphConfig, factor: float) -> GraphConfig:
    """The same graph with the precisions of its priors on ids and texts multiplied by ``factor``."""
    return config.with_settings(l2=config.priors.l2 * factor, l2_text=config.priors.l2_text * factor)
