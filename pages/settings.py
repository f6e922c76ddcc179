"""Study settings for owners: members, invites, assignment, guidelines, gold and withdrawn pairs, reports, record."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from copl_core.records import CoplError, Kind, Role, counted, counted_people
from copl_core.study import access, audit_trail, labelling
from copl_core.study.views import QUARANTINE_WORDS
from copl_core.study_settings import AssignmentSettings
from pages import privacy
from pages.common import current, rerun
from pages.gold_and_reports import gold_pairs, reports
from pages.members import clearable, members_and_invites, perform, show_outcome, when
from pages.studies import studies
from pages.texts import draw_markdown, literal

ORDERS = {
    "informative": "most informative about the person first",
    "random": "random",
    "imported": "as in the imported file",
}
TEXT_FORMATS = {
    "markdown": "Markdown",
    "plain": "plain, every character as it is",
    "formulas": "Markdown with formulas",
}
SHOWN = 200  # entries of the record shown at first


def page() -> None:
    session, me = current()
    st.title("Study")
    if me.role != Role.OWNER:
        st.error("Only an owner of the study may change its settings. Ask one of them.")
        st.stop()
    st.markdown(summary())
    show_outcome()
    sections = {
        "People and invites": members_and_invites,
        "Assignment": assignment,
        "Guidelines": guidelines,
        "Gold pairs": gold_pairs,
        "Reports": reports,
        "Record": record,
        "Privacy": privacy.section,
        "Studies": studies,
    }
    chosen = st.pills(  # which stand in rows on a phone
        "Section",
        list(sections),
        default="People and invites",
        required=True,
        key="settings-part",
        label_visibility="collapsed",
        bind="query-params",
    )
    sections[chosen]()


def summary() -> str:
    """The state of the study in a few sentences."""
    session, _ = current()
    settings, counts = labelling.assignment_settings(session), access.user_counts(session)
    humans, simulated, models = (counts.get(kind, 0) for kind in Kind)
    waiting, n_open = len(labelling.reports(session)), sum(state == "open" for _, state in access.invites(session))
    overlap = "everybody" if settings.overlap is None else counted_people(settings.overlap)
    access_rule = "Anybody with the address may join" if settings.open else "People join by invite only"
    invites = f"{counted(n_open, 'invite is', 'invites are') if n_open else 'no invite is'} open"
    problems = (
        f"**{counted(waiting, 'reported problem waits', 'reported problems wait')} for you**"
        if waiting
        else "no reported problem is open"
    )
    return (
        f"**{literal(session.record.name)}** has {counted_people(humans)}"
        + (f" and {counted(simulated, 'simulated one')}" if simulated else "")
        + (f" and {counted(models, 'language model')}" if models else "")
        + f". Each pair goes to {overlap}. {access_rule}; {invites}; {problems}."
    )


# ---- who gets which pair


def assignment() -> None:
    """The form of the assignment settings; Save stores all of them at once."""
    session, _ = current()
    settings = labelling.assignment_settings(session)
    with st.form("assignment", border=False):
        open_ = st.toggle(
            "Anybody with the address may join",
            value=settings.open,
            key="assignment-open",
            help="When this is off, people join by invite only. People who have joined stay.",
        )
        left, right = st.columns(2, gap="large")
        with left:
            values = rules(settings)
        with right:
            values |= shares(settings)
        if st.form_submit_button("Save", type="primary", key="assignment-save"):
            save_assignment(values | {"open": open_})


def rules(settings: AssignmentSettings) -> dict:
    """How many people label a pair, in which order pairs come, and what one person gets."""
    overlap = clearable(
        "People per pair",
        "assignment-overlap",
        settings.overlap,
        placeholder="everybody",
        help="Empty: everybody may label every pair.",
    )
    order = st.selectbox(
        "Order of new pairs",
        list(ORDERS),
        index=list(ORDERS).index(settings.order),
        format_func=ORDERS.get,
        key="assignment-order",
    )
    practice = st.number_input(
        "Practice pairs for a new person",
        value=settings.practice,
        step=1,
        key="assignment-practice",
        help="Gold pairs before the first real pair; the known answer is shown after each of them.",
    )
    goal = clearable(
        "Daily goal, in labels",
        "assignment-goal",
        settings.daily_goal,
        placeholder="no goal",
        help="Empty: no goal is shown.",
    )
    text_format = st.selectbox(
        "How texts are set",
        list(TEXT_FORMATS),
        index=list(TEXT_FORMATS).index(settings.text_format),
        format_func=TEXT_FORMATS.get,
        key="assignment-text-format",
        help="Line breaks are kept, HTML is shown as text, and pictures are links unless their host is named below. "
        "Formulas are TeX between \\\\( and \\\\), \\\\[ and \\\\], or dollar signs.",
    )
    hosts = st.text_input(
        "Hosts whose pictures are shown",
        value=" ".join(settings.picture_hosts),
        placeholder="none",
        key="assignment-pictures",
        help="Such as pictures.example.org, with a space between two. Pictures of these hosts, by https, are shown in "
        "texts and guidelines. Each host learns from which network a text is read, and when. Pages that are open load "
        "pictures of a new host after a reload.",
    )
    return dict(
        overlap=overlap,
        order=order,
        practice=practice,
        daily_goal=goal,
        text_format=text_format,
        picture_hosts=tuple(hosts.replace(",", " ").split()),
        reserve_minutes=reserve(settings),
        quarantine=quarantine(settings),
    )


def quarantine(settings: AssignmentSettings) -> str:
    return st.selectbox(
        "Whose answers wait for an owner",
        list(QUARANTINE_WORDS),
        index=list(QUARANTINE_WORDS).index(settings.quarantine),
        format_func=QUARANTINE_WORDS.get,
        key="assignment-quarantine",
        help="Checks are repeated pairs, gold pairs, and the time that reading takes; neither another taste nor "
        "answers like somebody else's are a reason. "
        "Labels that wait are stored and train nothing until an owner decides on Quality. Newcomers count as soon as "
        "their repeated pairs show that they do not answer at random; repeat more pairs if they shall wait.",
    )


def reserve(settings: AssignmentSettings) -> float | None:
    session, _ = current()
    default = session.settings.reserve_seconds / 60
    return clearable(
        "Minutes a pair is reserved",
        "assignment-reserve",
        settings.reserve_minutes,
        step=0.5,
        placeholder=f"{default:g}, the default of this installation",
        help="A pair that is not answered within this time goes to somebody else.",
    )


def shares(settings: AssignmentSettings) -> dict:
    """The shares of randomly drawn pairs, repeats and gold pairs."""
    uniform = percent(
        "Drawn at random",
        settings.uniform,
        "assignment-uniform",
        "The model chooses the other new pairs. Only on randomly drawn pairs is the model's accuracy measured.",
    )
    repeats = percent(
        "Repeated, with sides swapped",
        settings.repeats,
        "assignment-repeats",
        "Repeats show how consistently a person answers.",
    )
    gold = percent(
        "Gold pairs", settings.gold, "assignment-gold", "Pairs with a known answer; they only check attention."
    )
    st.caption(
        "Shares of all assigned pairs; the rest is chosen by “Order of new pairs”. Pairs that are on somebody's "
        "screen stay assigned."
    )
    return dict(uniform=uniform, repeats=repeats, gold=gold)


def percent(title: str, value: float, key: str, help: str) -> float:
    return st.slider(title, 0, 100, round(100 * value), format="%d%%", key=key, help=help) / 100


def save_assignment(values: dict) -> None:
    session, _ = current()
    try:
        settings = replace(labelling.assignment_settings(session), **values)
    except CoplError as problem:
        st.error(str(problem))
        return
    perform(labelling.set_assignment, settings, done="Saved. From now on pairs are assigned this way.")
    rerun()


# ---- guidelines


def guidelines() -> None:
    session, _ = current()
    latest = labelling.guidelines(session)
    st.write(
        "Guidelines are written in Markdown and shown below every pair. Each label stores the version shown with "
        "it, so a new version does not affect earlier labels."
    )
    editor, preview = st.columns(2, gap="large")
    with editor:
        text = st.text_area("Guidelines", value=latest.text, height=360, key=f"guidelines-{latest.version}")
        st.button(
            f"Save as version {latest.version + 1}",
            type="primary",
            key="guidelines-save",
            on_click=save_guidelines,
            args=(latest.version,),
        )
    with preview:
        st.caption("As people will see it")
        with st.container(border=True):
            draw_markdown(text) if text else st.markdown("*Nothing yet.*")
    history()


def save_guidelines(version: int) -> None:
    """Save the text as it was when the button was clicked; it may be newer than the page's last run."""
    session, _ = current()
    text = st.session_state[f"guidelines-{version}"]
    if text.strip() == labelling.guidelines(session).text:
        st.session_state["settings-done"] = "The text is the same as before, so no new version was made."
    else:
        perform(labelling.write_guidelines, text, done="The new version is shown from the next pair on.")


def history() -> None:
    session, _ = current()
    versions = labelling.guidelines_history(session)
    names = {id: user.name for id, user in access.users_of(session, (one.by for one in versions)).items()}
    if versions:
        st.markdown("##### Versions")
    for one in versions:
        latest = " (shown now)" if one is versions[0] else ""
        with st.expander(f"Version {one.version}{latest}, {names.get(one.by, 'the product')}, {when(one.at)}"):
            draw_markdown(one.text) if one.text else st.markdown("*Empty.*")
            if one is not versions[0]:
                st.button(
                    "Make this the newest version",
                    key=f"restore-{one.version}",
                    on_click=perform,
                    args=(labelling.write_guidelines, one.text),
                    kwargs={"done": "The old text is shown again."},
                )


# ---- the record


def record() -> None:
    session, _ = current()
    lines, more = audit_trail.changes(session, limit=st.session_state.setdefault("record-length", SHOWN))
    if not lines:
        st.write("Nothing has been changed yet.")
        return
    kinds = sorted({line.kind for line in lines})
    wanted = st.multiselect("Show only", kinds, key="record-events", placeholder="every kind of change")
    shown = [line for line in lines if not wanted or line.kind in wanted]
    st.table(  # and no dataframe, which cuts sentences
        [{"when": when(line.at), "what": literal(line.sentence)} for line in shown],
        border="horizontal",
        height=480 if len(shown) > 10 else "content",
        hide_header=False,
        hide_index=True,
        alt="Who changed what",
    )
    if more:
        st.caption(f"The last {counted(len(lines), 'change')}.")
        if st.button("Show more", key="record-more"):
            st.session_state["record-length"] *= 5
            rerun()
    else:
        st.caption(
            f"{counted(len(lines), 'change')} in all: roles, settings, labels and imports, and champions that somebody "
            "chose, newest first. Training lists the snapshots that the trainer made. Entries cannot be removed here."
        )


page()
