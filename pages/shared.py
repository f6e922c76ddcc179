"""Counts that everybody of a study sees: a part of My taste, and their settings, a part of Study, Privacy."""

from __future__ import annotations

import streamlit as st

from copl_core.study import labelling, shared
from copl_core.study.shared import ANSWERS_A_DAY, SharedCounts, SourceCount
from copl_core.study_settings import LEAST_EPSILON, MOST_EPSILON, MOST_TOTAL
from pages.common import current, rerun
from pages.members import perform

USUAL_EPSILON = 1.0


def results() -> None:
    """What everybody prefers, where the study shares it."""
    session, _ = current()
    found = shared.counts(session)
    if found is None:
        return
    st.subheader("What everybody prefers")
    if found.until is None:
        st.write("The first counts appear once a day is over: each day is counted once, at its end (UTC).")
        return
    st.markdown(lead(found))
    if found.sources:
        st.dataframe(
            [row(one) for one in found.sources],
            hide_index=True,
            width="stretch",
            key="shared-counts",
            alt="How often the answers of each source are preferred, with noise",
            placeholder="–",
        )
    st.caption(how_noised(found))


def lead(found: SharedCounts) -> str:
    days = f"From {found.since:%d %b %Y} to {found.until:%d %b %Y}"
    return (
        f"{days}, people gave **about {max(found.answers, 0):,} answers**, give or take "
        f"{1.96 * found.answers_deviation:,.0f}. **The numbers have noise**, so that nobody can tell from them what "
        "one person answered."
    )


def row(one: SourceCount) -> dict:
    shown = None if one.share is None else f"{one.share:.0%} ± {100 * one.half_width:.0f} points"
    return {
        "source": one.source,
        "preferred": shown,
        "answers for it": max(one.preferred, 0),
        "against it": max(one.not_preferred, 0),
    }


def how_noised(found: SharedCounts) -> str:
    return (
        f"Each day is counted once, with noise of ε = {found.epsilon:g}, and is the same however often it is read. "
        f"Of one person the first {ANSWERS_A_DAY} answers of a day count, up to ε = {found.total:g} over all days. "
        "± is the 95% interval of the noise alone. Sources without a share have too few answers for the noise."
    )


# ---- settings


def settings() -> None:
    """Switch the counts on, with their noise, or off."""
    session, _ = current()
    now = labelling.assignment_settings(session)
    st.subheader("Counts that everybody sees")
    st.write(
        "My taste can show everybody how many answers the study gets, and how often the answers of each source are "
        "preferred. Exact counts would tell what one person answered to somebody who knows the others' answers, or "
        "who looks before and after. These are counted once a day, with noise that is drawn once."
    )
    with st.form("shared", border=False):
        on = st.toggle("Share counts with everybody of the study", value=bool(now.shared_epsilon), key="shared-on")
        left, right = st.columns(2, gap="large")
        epsilon = left.number_input(
            "ε of a day",
            min_value=LEAST_EPSILON,
            max_value=MOST_EPSILON,
            value=now.shared_epsilon or USUAL_EPSILON,
            step=0.1,
            key="shared-epsilon",
            help="The smaller, the more noise. With ε = 1, whatever somebody sees of a day is at most 2.7 times as "
            f"likely with a person's answers as without. Of one person {ANSWERS_A_DAY} answers a day count.",
        )
        total = right.number_input(
            "ε of one person in all",
            min_value=LEAST_EPSILON,
            max_value=MOST_TOTAL,
            value=now.shared_total,
            step=1.0,
            key="shared-total",
            help="The days on which a person answers add up. Once they reach this sum, further answers of the person "
            "are counted no more. Days that are released stay as they are.",
        )
        if st.form_submit_button("Save", key="shared-save"):
            save(epsilon if on else 0.0, total)


def save(epsilon: float, total: float) -> None:
    perform(shared.share, epsilon, total, done="Saved. Counts are released at the end of each day (UTC)." if epsilon
            else "Saved. Nobody sees counts now.")  # fmt: skip
    rerun()
