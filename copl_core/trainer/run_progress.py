"""How far a whole run is, and how long it takes: from the seconds that its phases took in earlier runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from copl_core.records import Run, RunState
from copl_core.reward.tag_directions import FEWEST_PEOPLE

# Seconds of each phase on the demo study on two cores, in order: the guess for a study's first run of a kind.
WAITING, FIRST_LABELS, NEW_LABELS = "waiting for the other run", "reading labels", "new labels"
_GRAPH = {"graph": 5.0, "map": 3.0}
TYPICAL: dict[str, dict[str, float]] = {
    "graph": {WAITING: 0.1, FIRST_LABELS: 0.2, "texts": 2.0, **_GRAPH},
    "full": {
        FIRST_LABELS: 0.2,
        "texts": 2.0,
        "features of the texts": 2.0,
        "choosing priors": 40.0,
        "graph without the held-out labels": 5.0,
        "reading texts": 15.0,
        "training reward": 200.0,
        "mix": 10.0,
        "baselines": 3.0,
        WAITING: 0.1,
        NEW_LABELS: 0.2,
        "new texts": 0.5,
        **_GRAPH,
    },
}
TOOK, EXPECTED = "phase_seconds", "expected_seconds"  # stored keys of a run's config
_PACE = 0.25, 4.0  # bounds on how much slower or faster than expected a run is taken to be
_ENOUGH = 3.0  # seconds of finished phases that tell the pace


def expected_seconds(kind: str, earlier: Sequence[Run]) -> dict[str, float]:
    """Seconds of each phase, in order: as in the newest of the ``earlier`` runs that is done and has them."""
    typical = TYPICAL.get(kind, _GRAPH)
    for run in earlier:
        took = run.config.get(TOOK)
        if run.kind == kind and run.state == RunState.DONE and took:
            return {phase: max(0.1, float(took.get(phase, seconds))) for phase, seconds in typical.items()}
    return dict(typical)


def share_done(run: Run) -> float:
    """The share of a run that is done, in [0, 1], by what its phases are expected to take."""
    expected: Mapping[str, float] = run.config.get(EXPECTED) or TYPICAL.get(run.kind, _GRAPH)
    phases = list(expected)
    if run.phase not in phases:
        return 0.0
    before = sum(expected[phase] for phase in phases[: phases.index(run.phase)])
    here = min(1.0, run.step / run.steps) if run.steps else 0.0
    return (before + here * expected[run.phase]) / sum(expected.values())


class RunClock:
    """Measures the phases of one run and predicts the time that is left.

    Args:
        expected: seconds of each phase, in order.
    """

    def __init__(self, expected: Mapping[str, float]) -> None:
        self.expected = expected
        self.took: dict[str, float] = {}  # seconds of each phase so far
        self._phase, self._started, self._first_step = "", time.monotonic(), 0

    def at(self, phase: str, step: int, steps: int) -> float:
        """Note a report of the run; returns the seconds that are left of it."""
        now = time.monotonic()
        if phase != self._phase:
            if self._phase:
                self.took[self._phase] = now - self._started
            self._phase, self._started, self._first_step = phase, now, max(0, step - 1)
        self.took[phase] = now - self._started
        return self._left_here(phase, step, steps) + self._pace() * self._later(phase)

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase up to now."""
        here = {self._phase: time.monotonic() - self._started} if self._phase else {}
        return {phase: round(seconds, 2) for phase, seconds in (self.took | here).items()}

    def _left_here(self, phase: str, step: int, steps: int) -> float:
        done, left = step - self._first_step, max(0, steps - step)
        if done > 1:
            return self.took[phase] / done * left
        return max(0.0, self._pace() * self.expected.get(phase, 0.0) - self.took[phase])

    def _later(self, phase: str) -> float:
        """Expected seconds of the phases after this one."""
        phases = list(self.expected)
        after = phases[phases.index(phase) + 1 :] if phase in phases else phases
        return sum(self.expected[name] for name in after)

    def _pace(self) -> float:
        """How much slower than expected the finished phases were."""
        finished = [name for name in self.took if name != self._phase and name in self.expected]
        expected = sum(self.expected[name] for name in finished)
        if expected < _ENOUGH:
            return 1.0
        low, high = _PACE
        return min(high, max(low, sum(self.took[name] for name in finished) / expected))


def fit_length(entry: dict) -> dict:
    """How many steps the reward model of a manifest entry took, of how many, and whether the time cut them short."""
    return {name: entry.get("fit", {}).get(name) for name in ("steps", "planned_steps", "cut", "seconds")}


def tags_in_words(tags: Mapping | None) -> str:
    """A sentence about the tags of a manifest entry; empty where no label has one, and for older snapshots."""
    if not tags or not tags["labels"]:
        return ""
    found = f"{tags['labels']:,} labels have tags of reasons. "
    if tags["weight"]:
        return (
            f"{found}The own text weights learn from them too (the tags of a label weigh {tags['weight']:g} of it), "
            "since held-out labels are predicted better that way."
        )
    return (
        f"{found}They are not learned from: a tag needs {FEWEST_PEOPLE} people who give it, and held-out labels must "
        "be predicted better with tags than without."
    )


def length_in_words(length: Mapping) -> str:
    """A sentence about a ``fit_length``."""
    if length.get("cut"):
        return (
            f"The fit of the reward model was cut after {length['steps']} of {length['planned_steps']} steps, since "
            "its time was up; give it more (COPL_REWARD_BUDGET_SECONDS) or plan fewer steps (COPL_REWARD_STEPS)."
        )
    return f"The reward model took {length['steps']} of at most {length['planned_steps']} steps."
