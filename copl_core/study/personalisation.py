"""The gain of personalisation that the full runs of a study have measured, and with whose labels.  No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from copl_core.records import CoplError, Kind
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

_BASELINES = ("global", "side-length")  # in the held-out figures of a snapshot
FEWEST_HELD_OUT = 20  # labels, below which a held-out figure tells nothing


@dataclass(frozen=True, slots=True)
class PersonalisationGain:
    """What a personal model adds over the most accurate baseline that knows no taste, on held-out labels."""

    answer: str  # "yes" | "not yet" | "no"
    personal_accuracy: float  # accuracy of the personal model
    over: str  # the baseline: "global" (one preference) or "side-length" (one preference, and each user's habits)
    baseline_accuracy: float
    gain: float  # personal_accuracy − baseline_accuracy
    low: float  # 95 % interval of the gain, by a bootstrap over users
    high: float
    n: int  # held-out labels
    n_users: int
    snapshot: str
    fitted_in: str  # the snapshot whose run measured it
    paired: bool = True  # whether the interval is one of the difference on each label; else it is a wider one
    left_out: str = ""  # whose labels were in it and do not count now, in words; empty: nobody's

    @property
    def tells(self) -> bool:
        """Whether it is a figure of the people who count now, on enough held-out labels."""
        return self.n >= FEWEST_HELD_OUT and not self.left_out


@needs(RESEARCHER)
def personalisation_gain(session: Session) -> PersonalisationGain | None:
    """The measured gain of personalisation on this study's data; None before a full fit has measured it.

    A graph run repeats the figures of the full run that it builds on, also after a switch has left out people whose
    labels are in them; ``left_out`` then says so, and there is no answer yet.
    """
    champion = session.store.champion(session.id)
    if champion is None:
        return None
    gain, held_out = champion.metrics.get("gain"), champion.metrics.get("held_out") or {}
    if not gain or not {"copl", gain["over"]} <= set(held_out):
        return None
    left_out = _left_out_since(session)
    over, difference, (low, high), paired = _over_strongest(gain, held_out)
    fitted_in = champion.metrics.get("fitted_in") or champion.version
    return PersonalisationGain(
        _answer(low, high) if gain["n"] >= FEWEST_HELD_OUT and not left_out else "not yet",
        held_out["copl"]["accuracy"],
        over,
        held_out[over]["accuracy"],
        difference,
        low,
        high,
        gain["n"],
        gain["people"],
        champion.version,
        fitted_in,
        paired,
        left_out,
    )


def _left_out_since(session: Session) -> str:
    """The kinds of people, in words, whose labels the champion's reward model has learned from and who do not count
    now.
    """
    record, found = session.record, []
    switches = {
        Kind.SIMULATED: ("simulated people", record.include_simulated),
        Kind.MODEL: ("language models", record.include_models),
    }
    for kind, (words, included) in switches.items():
        hidden = [] if included else session.store.users_of_kind(session.id, kind)
        if hidden and np.isin(hidden, _learned_from(session)).any():
            found.append(words)
    return " and ".join(found)


def _learned_from(session: Session) -> np.ndarray:
    """The ids of the users with labels in the champion's reward graph; of nobody where its files cannot be read, since
    every page then says so.
    """
    try:
        snapshot = session.snapshot()
        state = snapshot.reward_graph if snapshot is not None and snapshot.has_reward else None
    except CoplError:
        return np.empty(0, np.int64)
    return np.empty(0, np.int64) if state is None else state.user_ids[state.n_labels > 0]


def _over_strongest(gain: Mapping, held_out: Mapping) -> tuple[str, float, tuple[float, float], bool]:
    """(the most accurate baseline, the gain over it, its interval, whether that is an interval of paired differences).

    Older versions stored only the gain over ``global``.  Over another baseline the interval is then that of two
    independent accuracies, which is wider: two methods tend to err on the same labels.
    """
    if stored := gain.get("strongest"):
        return stored["over"], stored["accuracy"], tuple(stored["accuracy_interval"]), True
    over = max((name for name in _BASELINES if name in held_out), key=lambda name: held_out[name]["accuracy"])
    if over == gain["over"]:
        return over, gain["accuracy"], tuple(gain["accuracy_interval"]), True
    own, theirs = held_out["copl"], held_out[over]
    (low, high), (their_low, their_high) = own["accuracy_interval"], theirs["accuracy_interval"]
    difference = own["accuracy"] - theirs["accuracy"]
    down = np.hypot(own["accuracy"] - low, their_high - theirs["accuracy"])
    up = np.hypot(high - own["accuracy"], theirs["accuracy"] - their_low)
    return over, difference, (float(difference - down), float(difference + up)), False


def _answer(low: float, high: float) -> str:
    return "yes" if low > 0 else "no" if high < 0 else "not yet"
