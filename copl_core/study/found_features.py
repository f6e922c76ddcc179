"""The verb of found features: what the texts differ in beyond what is counted, and which groups prefer it.

A full fit finds them, and the snapshot holds them (``training.found_fit``); here they are only read.  A feature is
shown by excerpts of responses.  Nothing that a person wrote is among them: no reason is read, and a response whose
source is the name of a person of the study is left out.  Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from copl_core.insight.found_features import FoundFeatures, Gain
from copl_core.records import Response
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

EXCERPT = 160  # characters
MOST = 3  # features of a group, and excerpts on each side of one


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
    """What found features add in a snapshot, by default the champion; None without one, or where it holds none:
    before the first full fit, with too few labels, and in snapshots of earlier versions."""
    snapshot = session.snapshot() if version is None else session.open_snapshot(version)
    if snapshot is None or snapshot.layout.found is None:
        return None
    stored = snapshot.layout.found
    texts = _quotable(session, stored)
    groups = {number: _of_group(stored, features, texts) for number, features in stored.groups.items()}
    return FoundFeaturesView(stored.gain, groups, stored.n_texts, stored.n_labels, snapshot.version)


def strongest(session: Session, stored: FoundFeatures, group: int) -> tuple[list[str], list[str]]:
    """(preferred texts, the others) of the pairs that show the strongest certain feature of a group, without texts
    whose source is a person of the study; both empty without one."""
    for feature, d in stored.groups.get(group, ()):
        texts = _quotable(session, stored)
        pairs = [pair if d > 0 else pair[::-1] for pair in stored.examples[feature].tolist()]
        shown = [(texts[one].text, texts[other].text) for one, other in pairs if one in texts and other in texts]
        if shown:
            return [one for one, _ in shown], [other for _, other in shown]
    return [], []


def _of_group(
    stored: FoundFeatures, features: tuple[tuple[int, float], ...], texts: dict[int, Response]
) -> tuple[Preferred, ...]:
    """The strongest features that there are responses to show."""
    shown: list[Preferred] = []
    for feature, d in features:
        pairs = [pair for pair in stored.examples[feature].tolist() if set(pair) <= texts.keys()][:MOST]
        if pairs and len(shown) < MOST:
            more, less = (tuple(excerpt(texts[side].text) for side in sides) for sides in zip(*pairs, strict=True))
            shown.append(Preferred(more, less, d) if d > 0 else Preferred(less, more, -d))
    return tuple(shown)


def shown_by(session: Session, stored: FoundFeatures, feature: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(excerpts of responses with more of a feature, and of those with less); both empty where none may be shown."""
    texts = _quotable(session, stored, [feature])
    pairs = [pair for pair in stored.examples[feature].tolist() if set(pair) <= texts.keys()][:MOST]
    more, less = (tuple(excerpt(texts[pair[side]].text) for pair in pairs) for side in (0, 1))
    return more, less


def _quotable(session: Session, stored: FoundFeatures, features: Sequence[int] | None = None) -> dict[int, Response]:
    """The responses of examples, by id, that no person of the study is known to have written; of the features that
    groups prefer, or of those given."""
    preferred = sorted({feature for own in stored.groups.values() for feature, _ in own})
    preferred = preferred if features is None else list(features)
    if not preferred:
        return {}
    texts = session.store.responses([one for one in stored.examples[preferred].ravel().tolist() if one >= 0])
    people = {user.name.strip().casefold() for user in session.store.users(session.id)}
    return {id: one for id, one in texts.items() if (one.source or "").strip().casefold() not in people}


def excerpt(text: str) -> str:
    """The beginning of a text, on one line, cut after a word."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[:EXCERPT].rsplit(" ", 1)[0] + " …"
