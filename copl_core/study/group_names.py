"""The verbs of group names: one name per group number, made from what the group prefers or given by an owner."""

from __future__ import annotations

import numpy as np

from copl_core.insight import describe
from copl_core.insight.group_names import GroupFeatures, group_traits, name_of, word_of
from copl_core.preference.state import GraphState
from copl_core.records import CoplError, NotInStudy
from copl_core.snapshots.snapshot import Snapshot
from copl_core.store import Store
from copl_core.study import found_features
from copl_core.study.audience import members_of
from copl_core.study.roles import MEMBER, OWNER, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study_settings import SMALLEST_GROUP

NAME_LENGTH = 40
_MARKS = " ,.-'’&/()+"  # besides letters and digits; others could mean something in the text around the name


@needs(MEMBER)
def names(session: Session, version: str | None = None) -> dict[int, str]:
    """Group number → name in a snapshot, by default the champion; empty before the first snapshot.

    Groups of earlier snapshots whose people are away at present keep their names.  No two groups have the same name.
    """
    snapshot = session.snapshot() if version is None else session.open_snapshot(version)
    if snapshot is None:
        return {}
    traits = session.once(f"group traits of {snapshot.version}", session.id, lambda: _traits(session, snapshot))
    given = session.store.group_names(session.id)
    words = _words(session, snapshot, traits)
    present = snapshot.layout.group[snapshot.layout.group >= 0].tolist()
    found, taken = dict(given), {name.casefold() for name in given.values()}
    for number in dict.fromkeys((*sorted(set(present)), *traits)):  # those on the map first
        if number not in given:
            name = f"Often “{words[number]}”" if number in words else name_of(number, traits.get(number, ()))
            found[number] = f"{name} ({number + 1})" if name.casefold() in taken else name
            taken.add(name.casefold())
    return dict(sorted(found.items()))


@needs(MEMBER)
def names_of_large(session: Session) -> dict[int, str]:
    """The names of the champion's groups of ``SMALLEST_GROUP`` people or more: that of a smaller one says what each of
    them prefers.
    """
    snapshot = session.snapshot()
    if snapshot is None:
        return {}
    numbers, sizes = np.unique(snapshot.user_groups, return_counts=True)
    large = set(numbers[sizes >= SMALLEST_GROUP].tolist())
    return {number: name for number, name in names(session).items() if number in large}


@needs(RESEARCHER)
def large(session: Session) -> list[int]:
    """The numbers of the champion's groups whose rewards stand on ``SMALLEST_GROUP`` people or more."""
    snapshot = session.snapshot()
    if snapshot is None:
        return []
    gates = snapshot.reward_graph if snapshot.has_reward else snapshot.graph
    return [number for number, ids in members_of(snapshot, gates, True).items() if len(ids) >= SMALLEST_GROUP]


@needs(RESEARCHER)
def present(session: Session) -> dict[int, str]:
    """Group number → name, of the groups that have people in the champion."""
    snapshot = session.snapshot()
    numbers = set() if snapshot is None else set(snapshot.layout.group.tolist())
    return {number: name for number, name in names(session).items() if number in numbers}


@needs(RESEARCHER)
def number_of(session: Session, wanted: str | int) -> int:
    """The number of a group of the champion, by its name or by its number on the pages, which begins with 1.

    Raises:
        NotInStudy: there is no such group.
    """
    found, wanted = present(session), str(wanted)
    for number, name in found.items():
        if wanted.strip().casefold() in (name.casefold(), str(number + 1)):
            return number
    known = ", ".join(f"{number + 1} {name!r}" for number, name in found.items()) or "none yet"
    raise NotInStudy(f"There is no group {wanted[:60]!r} in this study; its groups are {known}.")


@needs(OWNER)
def rename(session: Session, group: int, name: str, *, by: int | None = None) -> str:
    """Give a group a name of its own, or with an empty one back the name made from what it prefers.

    Returns:
        the name that it has now.

    Raises:
        CoplError: ``by`` is not an owner, there is no such group, or the name is too long, has other signs than
            letters, digits and ``_MARKS``, or is that of another group.
    """
    name = " ".join(name.split())
    present = names(session)
    if group not in present:
        known = ", ".join(str(number + 1) for number in present) or "none yet"
        raise CoplError(f"There is no group {group + 1}; the groups of this study are {known}.")
    if len(name) > NAME_LENGTH:
        raise CoplError(f"The name has {len(name)} characters; give at most {NAME_LENGTH}.")
    if odd := next((sign for sign in name if not sign.isalnum() and sign not in _MARKS), None):
        raise CoplError(f"The name has the sign {odd!r}; use letters, digits, spaces and {_MARKS.strip()}.")
    if any(name.casefold() == other.casefold() for number, other in present.items() if number != group):
        raise CoplError(f"Another group is named {name!r} already; choose a different name.")
    session.store.rename_group(session.id, group, name, by=by)
    return names(session)[group]


def _words(session: Session, snapshot: Snapshot, traits: GroupFeatures) -> dict[int, str]:
    """Words for the groups that no counted feature names, where a found feature is certain; of texts that no person of
    the study is known to have written.  Who is in the study may change, so the number of users is part of the key."""
    stored = snapshot.layout.found
    unnamed = [] if stored is None else [number for number in stored.groups if not traits.get(number)]
    if stored is None or not (unnamed and stored.gain.certain):
        return {}

    def find() -> dict[int, str]:
        texts = {number: found_features.strongest(session, stored, number) for number in unnamed}
        return {number: word for number, sides in texts.items() if (word := word_of(*sides))}

    users = sum(session.store.user_counts(session.id).values())
    return session.once(f"found names of {snapshot.version}", (session.id, users), find)


def _traits(session: Session, snapshot: Snapshot) -> GroupFeatures:
    """The traits that the snapshot holds; for one of before there were names, computed from its labels."""
    if snapshot.layout.traits is not None:
        return snapshot.layout.traits
    return group_traits(snapshot.graph, snapshot.user_groups, measured_styles(session.store, snapshot.graph))


def measured_styles(store: Store, state: GraphState) -> np.ndarray:
    """Features (R, F) of the most labelled responses; NaN for all others."""
    found = store.responses(state.response_ids[describe.most_labelled(state)].tolist())
    return describe.styles(state, {one: response.text for one, response in found.items()})
