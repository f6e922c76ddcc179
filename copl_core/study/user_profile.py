"""The verbs of the My taste page: a user's taste in words, the labels behind it, and all their answers.

Numpy only, so that the page opens fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from copl_core.features import FEATURE_NAMES, measure
from copl_core.ids import rows_of
from copl_core.insight import taste as words
from copl_core.insight.quality import BOTH_BAD, TIE, Share, repeated_answers
from copl_core.preference.posterior import draws
from copl_core.records import Choice, CoplError, Label, Response
from copl_core.study import found_features, group_profiles, placement, user_map
from copl_core.study.roles import MEMBER, OWN, needs
from copl_core.study.session import Session
from copl_core.study.views import Evidence, PastAnswer, UserProfile

_PAIRS = 2000  # pairs of the study that are used, so that the page of a large study opens as fast
_DRAWS = 200  # posterior draws of the user's vector, for the uncertainty of the model's statements
_MISSING = Response(-1, -1, "(this text is not in the study any more)")


@needs(OWN)
def profile(session: Session, user_id: int) -> UserProfile:
    """A user's position on the map, what they like in words, and how consistent their answers are.

    With a damaged snapshot the statements from the labels remain; ``problem`` says what is wrong.
    """
    labels = session.store.labels(session.id, user_id=user_id)
    pairs, prompts, differences = _pairs(session)
    scale = words.typical(differences)
    differences = differences / scale
    chosen, chosen_prompts, _ = _chosen(session, labels, scale)
    rng = np.random.default_rng(0)  # the same labels always give the same statements
    by_labels = words.from_labels(chosen, chosen_prompts, rng)
    position, model, population, problem = None, None, None, ""
    try:
        position = user_map.position(session, user_id)
        if position is not None:
            model, population = _by_model(session, user_id, labels, pairs, prompts, differences)
    except CoplError as error:
        problem = str(error)
    leanings = words.leanings(by_labels, chosen, words.correlations(differences), model, population)
    return UserProfile(
        len(labels),
        len(chosen),
        len(set(chosen_prompts.tolist())),
        position,
        leanings,
        len(pairs),
        _consistent(labels),
        None if position is None else position.snapshot,
        problem,
    )


@needs(OWN)
def uncounted(session: Session, user_id: int) -> tuple[found_features.Preferred, ...]:
    """What the user's group prefers beyond everything that is counted, strongest first.

    Empty unless the user clearly belongs to a group, found features predict more with certainty, and one of them
    distinguishes the group with certainty and more than every counted feature does.
    """
    view, snapshot = found_features.found(session), session.snapshot()
    if view is None or snapshot is None or not view.gain.certain:
        return ()
    position = placement.position_in(snapshot, user_id, session.store.labels(session.id, user_id=user_id))
    if position.group is None or not position.clear or not view.groups.get(position.group):
        return ()
    (profile,) = (one for one in group_profiles.profiles(session) if one.group == position.group)
    counted = max((abs(one.d) for one in profile.label_statements), default=0.0)
    return tuple(one for one in view.groups[position.group] if one.d > counted)


@needs(MEMBER)
def measure_pairs(session: Session) -> None:
    """Measure the texts of the pairs by which tastes are measured; they are kept."""
    _pairs(session)


@needs(OWN)
def evidence(session: Session, user_id: int, feature: str) -> tuple[Evidence, ...]:
    """The user's decided labels, sorted by how far the preferred response is ahead in a feature, furthest first."""
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


@needs(OWN)
def answer_history(session: Session, user_id: int) -> tuple[PastAnswer, ...]:
    """All answers of a user with their texts, newest first; superseded answers come with the one that replaced them."""
    labels = session.store.history(user_id)
    texts, prompts = _texts(session, labels), dict(session.store.prompts(session.id))
    before: dict[int, Label] = {label.successor_id: label for label in labels if label.successor_id is not None}
    found, of_pair = [], dict[int, list[Label]]()
    for label in reversed(labels):
        if label.counts:
            of_pair.setdefault(label.pair_id, []).append(label)
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
                texts.get(label.left_id, _MISSING),
                texts.get(label.right_id, _MISSING),
                tuple(older),
                tuple(one for one in of_pair[label.pair_id] if one.id != label.id),
            )
        )
    return tuple(found)


# ---- helpers


def _by_model(
    session: Session,
    user_id: int,
    labels: Sequence[Label],
    pairs: np.ndarray,
    prompts: np.ndarray,
    differences: np.ndarray,
) -> tuple[words.Effects | None, np.ndarray | None]:
    """What the champion predicts for the user, and for the mean user (F,), by feature; None without neighbours."""
    snapshot = session.snapshot()
    if snapshot is None:
        return None, None
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
    """(pairs (P, 3), prompt of each (P,), differences first − second (P, F)); a sample of a large study's pairs."""
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    if len(pairs) > _PAIRS:
        pairs = pairs[np.sort(np.random.default_rng(0).choice(len(pairs), _PAIRS, replace=False))]
    texts = session.store.responses(np.unique(pairs[:, 1:]).tolist())
    prompts = np.array([texts[first].prompt_id for first in pairs[:, 1].tolist()], np.int64)
    return pairs, prompts, _styles(texts, pairs[:, 1]) - _styles(texts, pairs[:, 2])


def _chosen(session: Session, labels: Sequence[Label], scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Label]]:
    """(standardised differences preferred − rejected (N, F), prompts (N,), the labels) of the decided labels."""
    kept = [label for label in labels if label.preferred_id is not None]
    texts = _texts(session, kept)
    preferred = _styles(texts, [_preferred(label) for label in kept])
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
    """Cached, since measuring texts takes longer than everything else here."""
    return tuple(measure(text).tolist())


def _consistent(labels: Sequence[Label]) -> Share:
    """Of a user's repeated pairs, those answered the same as the time before; labels come oldest first."""
    pair = np.array([label.pair_id for label in labels], np.int64)
    preferred = np.array([_preferred(label) for label in labels], np.int64)
    _, same = repeated_answers(np.zeros(len(labels), np.int64), pair, preferred)
    return Share(int(same.sum()), len(same))


def _preferred(label: Label) -> int:
    if label.preferred_id is not None:
        return label.preferred_id
    return BOTH_BAD if label.choice == Choice.BOTH_BAD else TIE
