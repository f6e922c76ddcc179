"""The gain of personalisation in words, as several pages say it: over the better of the baselines without taste."""

from __future__ import annotations

from copl_core.records import counted_people
from copl_core.study import label_quality
from copl_core.study.personalisation import PersonalisationGain
from pages.common import current

BASELINES = {
    "global": "one shared preference for all people",
    "side-length": "one shared preference, with each person's own habits of side and length",
}
VERDICTS = {"yes": "Yes.", "no": "No.", "not yet": "Not shown yet."}


def gain_in_words(found: PersonalisationGain) -> str:
    """Both accuracies, their difference with its interval, and what the interval means."""
    if found.left_out:
        return (
            f"The figures of {found.fitted_in} were measured with {found.left_out}, who no longer count: not measured "
            "yet on your people. A run of graph and reward model measures it."
        )
    if not found.tells:
        answers = f"{found.n:,} held-out answer{'s' * (found.n != 1)}"
        return f"So far there are {answers}: too few to tell. The next runs hold out more as people go on answering."
    return (
        f"The personal model predicts {found.personal_accuracy:.1%} of {found.n:,} held-out answers of "
        f"{counted_people(found.n_users)} correctly; the better of the two baselines ({BASELINES[found.over]}) "
        f"predicts {found.baseline_accuracy:.1%}. {difference(found)}"
    )


def ceiling_in_words() -> str:
    """How high any accuracy can be, by repeated pairs; empty where there are too few of them."""
    session, _ = current()
    found = label_quality.ceiling(session)
    if found is None:
        return ""
    return (
        f"**No model can predict more than about {found.accuracy:.0%}** of single answers here (95% interval "
        f"{found.low:.0%} to {found.high:.0%}): {counted_people(found.n_users)} gave the same answer to "
        f"{found.consistent:.0%} of {found.n_repeats:,} repeated pairs. This assumes that mistakes are equally likely "
        "in both answers."
    )


def difference(found: PersonalisationGain) -> str:
    points = f"{abs(100 * found.gain):.1f} points {'more' if found.gain >= 0 else 'less'}"
    interval = f"95% interval {signed(found.low)} to {signed(found.high)}"
    interval += "" if found.paired else ", a wide one, from the intervals of both"
    end = "" if found.answer != "not yet" else " The interval includes zero: more labels or more people are needed."
    return f"That is {points} ({interval}).{end}"


def signed(share: float) -> str:
    """A difference of shares in points, with a real minus sign."""
    return f"{100 * share:+.1f}".replace("-", "−")
