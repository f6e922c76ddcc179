"""The verb of found features: what the texts differ in beyond what is counted, and which groups prefer it.

A feature is shown by excerpts of responses.  Nothing that a person wrote is among them: no reason is read here, and a
response whose source is the name of a person of the study is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from copl_core.features import FEATURE_NAMES
from copl_core.insight import describe
from copl_core.insight.found_features import Examples, Gain, Split, examples, find_in, gain_over_counted
from copl_core.records import Response, TrainingData
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import contents
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.training.split import split_by_edge

EXCERPT = 160  # characters
MOST = 3  # features of a group
FEWEST = 100  # held-out labels
_SPLITS = 3
_SHARE = 0.3  # of each user's responses, held out
_TEXTS = 2000  # of the most labelled
_USERS = 1000  # whose labels are read; of more, always the same sample


@dataclass(frozen=True, slots=True)
class Preferred:
    """What a group prefers, by excerpts: responses like the first ones to responses like the others."""

    more: tuple[str, ...]
    less: tuple[str, ...]
    d: float  # standard deviations between users


@dataclass(frozen=True, slots=True)
class FoundFeaturesView:
    gain: Gain  # over the counted features, on held-out labels
    groups: dict[int, tuple[Preferred, ...]]  # empty unless the gain is certain
    n_texts: int
    n_labels: int
    snapshot: str


@needs(RESEARCHER)
def found(session: Session, version: str | None = None) -> FoundFeaturesView | None:
    """What found features add in a snapshot, by default the champion; None without one, or with too few labels."""
    snapshot = session.snapshot() if version is None else session.open_snapshot(version)
    if snapshot is None:
        return None
    name = f"found features of {snapshot.version}"
    return session.once(name, session.id, lambda: _found(session, snapshot))


def _found(session: Session, snapshot: Snapshot) -> FoundFeaturesView | None:
    data, responses = _data(session, snapshot)
    if not len(data.labels):
        return None
    splits = nested_splits(data, _SPLITS)
    if sum(int(split.test.sum()) for split in splits) < FEWEST or not all(split.inner_test.any() for split in splits):
        return None
    phi = session.scorer().embed(list(data.texts()), snapshot.graph.features_version)
    encoder, counted = parts_of(phi)
    if not encoder.shape[1]:
        return None
    gained = gain_over_counted(counted, encoder, data.labels, data.n_users, splits)
    groups = _of_groups(session, snapshot, data, encoder, responses) if gained.certain else {}
    return FoundFeaturesView(gained, groups, data.n_responses, len(data.labels), snapshot.version)


def parts_of(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ (R, P) as the encoder's coordinates (R, E) and the standardised counted features (R, F)."""
    style = phi[:, -len(FEATURE_NAMES) :].astype(np.float64)
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


def _data(session: Session, snapshot: Snapshot) -> tuple[TrainingData, list[Response]]:
    """The decided labels of the snapshot on its most labelled responses, as training data of these alone."""
    state = snapshot.graph
    labels, n = state.labels, len(state.response_ids)
    often = np.bincount(np.concatenate([labels.left, labels.right]), minlength=n)
    rows = np.sort(np.argsort(-often, kind="stable")[:_TEXTS])
    known = session.store.responses(state.response_ids[rows].tolist())
    rows = np.array([row for row in rows.tolist() if int(state.response_ids[row]) in known], np.int64)
    responses = [known[int(state.response_ids[row])] for row in rows]
    texts = dict(contents.prompts(session))
    prompts = sorted({response.prompt_id for response in responses})
    place = np.full(len(state.response_ids), -1)
    place[rows] = np.arange(len(rows))
    known_texts = (place[labels.left] >= 0) & (place[labels.right] >= 0)
    users = np.flatnonzero(state.n_labels > 0)
    users = users[np.linspace(0, len(users) - 1, min(len(users), _USERS)).astype(int)]
    labels = labels.take(labels.decided & known_texts & np.isin(labels.user, users))
    return TrainingData(
        user_ids=state.user_ids,
        response_ids=state.response_ids[rows],
        response_prompt=np.searchsorted(prompts, [response.prompt_id for response in responses]),
        prompts=tuple(texts[prompt] for prompt in prompts),
        responses=tuple(response.text for response in responses),
        labels=replace(labels, left=place[labels.left], right=place[labels.right]),
    ), responses


def _of_groups(
    session: Session, snapshot: Snapshot, data: TrainingData, encoder: np.ndarray, responses: list[Response]
) -> dict[int, tuple[Preferred, ...]]:
    """What each group prefers with certainty more than the others, strongest first."""
    labels = data.labels
    pairs = np.stack([labels.left, labels.right], 1)
    distinct = np.unique(pairs, axis=0)
    dictionary = find_in(encoder, labels, np.ones(len(labels), bool))
    shown = examples(
        dictionary.codes(encoder[distinct[:, 0]] - encoder[distinct[:, 1]]),
        distinct,
        data.response_prompt,
        _quotable(session, responses),
    )
    codes = dictionary.codes(encoder[labels.left] - encoder[labels.right])
    chosen = codes * np.where(labels.outcome > 0.5, 1, -1)[:, None] / np.sqrt((codes**2).mean(0) + 1e-300)
    leaning, counts = describe.user_means(labels.user, chosen, data.n_users)
    group, found = snapshot.user_groups, {}
    for number in np.unique(group[group >= 0]).tolist():
        inside = group == number
        contrast = describe.contrast(
            leaning[group >= 0],
            inside[group >= 0],
            int(counts[inside].sum()),
            np.random.default_rng(number),
        )
        if contrast is None:
            continue
        order = [f for f in np.argsort(-np.abs(contrast.d), kind="stable").tolist() if contrast.certain[f]]
        ranked = [_preferred(shown[f], float(contrast.d[f]), responses) for f in order]
        found[number] = tuple(one for one in ranked if one.more)[:MOST]
    return found


def _preferred(shown: Examples, d: float, responses: list[Response]) -> Preferred:
    sides = [tuple(excerpt(responses[row].text) for row in rows) for rows in (shown.more, shown.less)]
    more, less = sides if d > 0 else sides[::-1]
    return Preferred(more, less, abs(d))


def _quotable(session: Session, responses: list[Response]) -> np.ndarray:
    """Mask (R,) of the responses that no person of the study is known to have written."""
    people = {user.name.strip().casefold() for user in session.store.users(session.id)}
    return np.array([(one.source or "").strip().casefold() not in people for one in responses], bool)


def excerpt(text: str) -> str:
    """The beginning of a text, on one line, cut after a word."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[:EXCERPT].rsplit(" ", 1)[0] + " …"
