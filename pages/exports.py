"""A part of the settings page: labels for other tools; what is left out is counted before a file is downloaded."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import exports, group_names
from copl_core.study.exports import FORMATS, ExportReport, PreparedExport, Selection, Whose
from pages.common import current, download
from pages.find_people import find_people
from pages.imports import counted
from pages.texts import literal

EVERYBODY, GROUP, PEOPLE = "Everybody", "A group", "Chosen people"
TIES = {"apart": "in a second file", "split": "as two rows of half weight", "out": "left out"}
MARGINS = {1: "any", 2: "better or much better", 3: "much better"}


def export_part() -> None:
    """Choose a format, people and filters; then a file is prepared, and its counts stand above its download."""
    st.subheader("Export")
    with st.container(border=True):
        form, whose = target()
        if whose is None:
            return
        try:
            selection = filters(form)
        except CoplError as problem:
            st.error(str(problem))
            return
        options = (form, whose, selection)
        if st.button("Prepare the file", key="export-prepare", type="primary"):
            prepare(*options)
        wanted, prepared = st.session_state.get("exported", (None, None))
        if wanted == options and prepared is not None:
            offer(prepared)


def target() -> tuple[str, Whose | None]:
    """(format, whose labels); None where nobody is chosen yet."""
    session, _ = current()
    left, right = st.columns(2)
    with left:
        form = st.selectbox("Format", list(FORMATS), format_func=lambda name: FORMATS[name].title, key="export-format")
    groups = list(group_names.present(session).values())
    with right:
        kinds = [EVERYBODY, *([GROUP] if groups else []), PEOPLE]
        kind = st.selectbox("Whose labels", kinds, key="export-whose")
    users, group = (), None
    if kind == GROUP:
        group = st.selectbox("Group", groups, key="export-group")
    if kind == PEOPLE:
        kept = st.session_state.get("export-users", [])
        names = {user.name for user in find_people("export-find")} | set(kept)
        users = tuple(st.multiselect("People", sorted(names), key="export-users"))
        if not users:
            st.caption("Choose one person or more.")
            return form, None
    pseudonyms = st.toggle(
        "Numbers instead of names",
        key="export-pseudonyms",
        help="People are person-17 and the like. Reasons, fields of imported files and keys of labels are left out, "
        "since they may name people. Simulated people and language models keep their names.",
    )
    return form, Whose(users, group, pseudonyms)


def filters(form: str) -> Selection:
    """What of these people's labels is written.

    Raises:
        CoplError: the values do not fit together.
    """
    one = FORMATS[form]
    with st.expander("Ties, filters and shares", key="export-filters"):
        left, right = st.columns(2)
        ties, plain, shares = "apart", False, False
        with left:
            if not one.has_ties:
                ties = st.selectbox("Ties", list(TIES), format_func=TIES.__getitem__, key="export-ties")
                plain = st.toggle("Texts instead of messages", key="export-plain")
            margin = st.selectbox(
                "How much better at least", list(MARGINS), format_func=MARGINS.__getitem__, key="export-margin"
            )
            if one.has_shares:
                shares = st.toggle(
                    "One row per pair, with the share of people who prefer it",
                    key="export-shares",
                    help="Soft targets: a tie counts half for each answer.",
                )
        with right:
            agreement = st.slider("Smallest agreement about a pair", 0, 100, 0, format="%d%%", key="export-agreement")
            people = st.number_input("Fewest people per pair", 1, value=1, key="export-people")
            diverse = st.number_input(
                "Only so many pairs, the most different ones",
                1,
                value=None,
                placeholder="all pairs",
                key="export-diverse",
                help="Their texts are compared by the sentence model, which takes a moment for texts that no snapshot "
                "has read.",
            )
    return Selection(ties, margin, agreement / 100, people, diverse, shares, plain)


def prepare(form: str, whose: Whose, selection: Selection) -> None:
    session, me = current()
    st.session_state.pop("exported", None)
    try:
        with st.spinner("Writing the file"):
            prepared = exports.prepare(session, form, selection, whose, by=me.id)
    except CoplError as problem:
        st.error(str(problem))
    else:
        st.session_state["exported"] = ((form, whose, selection), prepared)


def offer(prepared: PreparedExport) -> None:
    """The counts of a prepared file, and its download."""
    session, _ = current()
    st.markdown(summary(prepared.report))
    stem = "-".join(session.record.name.split())
    st.download_button(
        "Download",
        data=download(lambda session, me: exports.prepared_bytes(session, prepared, by=me.id)),
        file_name=f"{stem}-labels{''.join(prepared.path.suffixes)}",
        key="export",
        on_click="ignore",
        icon=":material/download:",
    )


def summary(report: ExportReport) -> str:
    """What was written and what not, as a paragraph and a list."""
    rows = f"**{counted(report.n_written, 'row')}** of {counted(report.n_labels, 'label')}"
    apart = f", and {counted(report.n_ties, 'tie')} in a second file" if report.n_ties else ""
    missing = "\n".join(f"- {n:,} {literal(why)}: left out" for why, n in report.left_out.items())
    return f"{rows}{apart}.\n\n{missing}".rstrip()
