"""A part of Controversy: preferences that go in circles, against what noise alone makes."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, counted_people
from copl_core.study import triads
from copl_core.study.triads import RARE, TriadSummary, TriadView
from pages.common import current, group_name, person_name, source_line

FEW = 30  # triads below which noise hides any effect


def circles() -> None:
    session, _ = current()
    try:
        view = triads.triads(session)
    except CoplError as problem:
        st.error(str(problem))
        return
    if view is None:
        return
    st.subheader("Do preferences go in circles?")
    if not view.total.n_triads:
        st.write(
            "Nobody has compared three answers to one question with each other, so circles (A over B, B over C, C "
            "over A) cannot be counted."
        )
        return
    st.write(meaning(view.total))
    if len(view.groups) > 1 and view.total.n_triads >= FEW:
        table("circles-groups", [(group_name(group), one) for group, one in view.groups], "group")
    if view.people:
        st.write(of_people(view))
        table("circles-people", [(person_name(user.name, user.kind), one) for user, one in view.people], "person")
    sample = f" A sample of {view.sampled_from:,} of them." if view.sampled_from else ""
    sample += f" Looked for in the labels of {counted_people(view.n_drawn)}, evenly chosen." if view.n_drawn else ""
    source_line(
        "A triad is three answers to one question that one person compared in all three pairs; of several answers to "
        f"one pair the first counts.{sample} What the model does not know of a person counts as noise, so fewer "
        "circles than expected are usual, and only more are a finding.",
        view.snapshot,
    )


def meaning(total: TriadSummary) -> str:
    triads_ = "1 triad" if total.n_triads == 1 else f"{total.n_triads:,} triads"
    people = counted_people(total.n_users)
    goes = "goes" if total.circular == 1 else "go"
    counts = (
        f"**{total.circular:,} of {triads_}** of {people} {goes} in a circle (A over B, B over C, C over A); noise "
        f"alone would make {total.expected:,.1f} (95%: {total.low:,} to {total.high:,})."
    )
    if total.n_triads < FEW:
        return f"{counts} These are too few triads to tell anything."
    if total.more:
        return f"{counts} **That is more than noise**: some preferences here follow no ranking, whatever its scores."
    return f"{counts} That is no more than noise: nothing here speaks against ranking answers by a score."


def of_people(view: TriadView) -> str:
    by_noise = RARE * view.total.n_users
    some = "1 person has" if view.n_above == 1 else f"{view.n_above:,} people have"
    shown = f" The {len(view.people)} clearest are listed." if len(view.people) < view.n_above else ""
    return (
        f"{some} more circles than noise makes in all but {RARE:.1%} of cases; of {view.total.n_users:,}, up to "
        f"{by_noise:,.1f} would by noise alone.{shown} It says something about the questions and about a taste, and "
        "nothing about care."
    )


def table(key: str, rows: list[tuple[str, TriadSummary]], what: str) -> None:
    st.dataframe(
        [
            {
                what: name,
                "triads": one.n_triads,
                "circles": one.circular,
                "by noise": one.expected,
                "by noise, 95%": f"{one.low:,} to {one.high:,}",
            }
            for name, one in rows
        ],
        hide_index=True,
        width="content",
        key=key,
        alt=f"Circular triads by {what}",
        column_config={"by noise": st.column_config.NumberColumn(format="%.1f")},
    )
