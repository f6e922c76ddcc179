"""What a person may see of themselves: their taste in words, the labels that speak for it, and all they answered.

Verbs, as functions of a study; numpy only, so that the page opens at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from copl_core.features import FEATURE_NAMES, measure
from copl_core.ids import rows_of
from copl_core.insight import taste as words
from copl_core.insight.quality import Share
from copl_core.preference.posterior import draws
from copl_core.records import CoplError, Label, Response
from copl_core.study import placement, user_map
from copl_core.study.session import Session
from copl_core.study.views import Evidence, PastAnswer, UserProfile

_PAIRS = 2000  # of the study that are looked at, so that a large one opens as fast
_DRAWS = 200  # of the person's vector, for the doubt in what the model believes
_NOT_THERE = Response(-1, -1, "(this text is not in the study any more)")


def profile(session: Session, user_id: int) -> UserProfile:
    """Where a person stands, what they like in words, and how consistent they are with themselves.

    A damaged snapshot takes away what the model believes, not what the labels say: ``problem`` tells of it.
    """
    labels = session.store.labels(session.id, user_id=user_id)
    pairs, prompts, differences = _pairs(session)
    scale = words.typical(differences)
    differences = differences / scale
    chosen, chosen_prompts, _ = _chosen(session, labels, scale)
    rng = np.random.default_rng(0)  # the same labels are always told the same
    by_labels = words.from_labels(chosen, chosen_prompts, rng)
    place, model, of_most, problem = None, None, None, ""
    try:
        place = user_map.position(session, user_id)
        if place is not None:
            model, of_most = _believed(session, user_id, labels, pairs, prompts, differences)
    except CoplError as mishap:
        problem = str(mishap)
    told = words.leanings(by_labels, chosen, words.alike(differences), model, of_most)
    return UserProfile(
        len(labels),
        len(chosen),
        len(set(chosen_prompts.tolist())),
        place,
        told,
        len(pairs),
        _consistent(labels),
        None if place is None else place.snapshot,
        problem,
    )


def evidence(session: Session, user_id: int, feature: str) -> tuple[Evidence, ...]:
    """The person's decided labels by how far the preferred answer is ahead in a feature, furthest ahead first."""
    if feature not in FEATURE_NAMES:
        raise CoplError(f"There is no feature {feature!r}; take one of {', '.join(FEATURE_NAMES)}.")
    labels = session.store.labels(session.id, user_id=user_id)
    _, _, differences = _pairs(session)
    chosen, _, kept = _chosen(session, labels, words.typical(differences))
    ahead = np.nan_to_num(chosen[:, FEATURE_NAMES.index(feature)])
    texts, prompts = _texts(session, kept), dict(session.store.prompts(session.id))
    return tuple(
        Evidence(
            kept[i], prompts[kept[i].prompt_id], texts[kept[i].preferred_id], texts[_rejected(kept[i])], float(ahead[i])
        )
        for i in np.argsort(-ahead, kind="stable")
    )


def answer_history(session: Session, user_id: int) -> tuple[PastAnswer, ...]:
    """Everything a person answered, newest first, with its texts; superseded answers stand with what replaced them."""
    labels = session.store.history(user_id)
    texts, prompts = _texts(session, labels), dict(session.store.prompts(session.id))
    before: dict[int, Label] = {label.successor_id: label for label in labels if label.successor_id is not None}
    found = []
    for label in labels:
        if not label.counts:
            continue
        older, step = [], before.get(label.id)
        while step is not None:
            older.append(step)
            step = before.get(step.id)
        found.append(
            PastAnswer(
                label,
                prompts.get(label.prompt_id, ""),
                texts.get(label.left_id, _NOT_THERE),
                texts.get(label.right_id, _NOT_THERE),
                tuple(older),
            )
        )
    return tuple(found)


# ---- helpers


def _believed(
    session: Session,
    user_id: int,
    labels: Sequence[Label],
    pairs: np.ndarray,
    prompts: np.ndarray,
    differences: np.ndarray,
) -> tuple[words.Effects | None, np.ndarray | None]:
    """What the champion expects of the person, and of the mean person, in every feature; nothing before a place."""
    snapshot = session.snapshot()
    state = snapshot.graph
    vector, source, _ = placement.vector(state, user_id, labels, snapshot.prior)
    rows = rows_of(pairs[:, 1:], state.response_ids)
    known = (rows >= 0).all(1)
    if source == "population mean" or not known.any():
        return None, None
    vectors = np.concatenate(
        [
            np.stack([vector, state.population]),
            draws(state, snapshot.prior, placement.comparisons(state, labels), vector, _DRAWS),
        ]
    )
    expected = placement.preferences(state, vectors, rows[known])
    mine = words.from_model(expected[0], differences[known], prompts[known], draws=expected[2:])
    return mine, words.from_model(expected[1], differences[known], prompts[known]).mean


def _pairs(session: Session) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pairs (P, 3), prompt of each (P,), differences first − second (P, F)); of a large study, some of its pairs."""
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    if len(pairs) > _PAIRS:
        pairs = pairs[np.sort(np.random.default_rng(0).choice(len(pairs), _PAIRS, replace=False))]
    texts = session.store.responses(np.unique(pairs[:, 1:]).tolist())
    prompts = np.array([texts[first].prompt_id for first in pairs[:, 1].tolist()], np.int64)
    return pairs, prompts, _styles(texts, pairs[:, 1]) - _styles(texts, pairs[:, 2])


def _chosen(session: Session, labels: Sequence[Label], scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Label]]:
    """(standardised differences preferred − rejected (N, F), prompts (N,), the labels) of those that prefer one."""
    kept = [label for label in labels if label.preferred_id is not None]
    texts = _texts(session, kept)
    preferred = _styles(texts, [label.preferred_id for label in kept])
    rejected = _styles(texts, [_rejected(label) for label in kept])
    return (preferred - rejected) / scale, np.array([label.prompt_id for label in kept], np.int64), kept


def _rejected(label: Label) -> int:
    return label.right_id if label.preferred_id == label.left_id else label.left_id


def _texts(session: Session, labels: Sequence[Label]) -> dict[int, Response]:
    return session.store.responses(sorted({side for label in labels for side in (label.left_id, label.right_id)}))


def _styles(texts: dict[int, Response], ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Features (T, F) of the responses of these ids."""
    return np.array([_measured(texts[int(one)].text) for one in ids], np.float64).reshape(-1, len(FEATURE_NAMES))


@lru_cache(maxsize=20_000)
def _measured(text: str) -> tuple[float, ...]:
    """A text always measures the same, and measuring takes longer than everything else here."""
    return tuple(measure(text).tolist())


def _consistent(labels: Sequence[Label]) -> Share:
    """Of pairs answered again, how many were answered as the time before; labels come oldest first."""
    last: dict[int, tuple[str, int | None]] = {}
    same = again = 0
    for label in labels:
        said = (str(label.choice) if label.preferred_id is None else "", label.preferred_id)
        if label.pair_id in last:
            again += 1
            same += last[label.pair_id] == said
        last[label.pair_id] = said
    return Share(same, again)
