"""Study: who may come in, who gets which pair, what people are told, and a record of every change.  For owners."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from copl_core.records import AuditEntry, CoplError, Kind, Role
from copl_core.study import access, labelling
from copl_core.study_settings import AssignmentSettings
from pages.common import again, here
from pages.gold_and_reports import gold_pairs, reports
from pages.members import attempt, clearable, doors, told, when

ORDERS = {
    "informative": "the pair that teaches the model most about the person",
    "random": "by chance",
    "imported": "in the order of the file",
}
SHOWN = 200  # lines of the record, at first


def page() -> None:
    session, me = here()
    st.title("Study")
    if me.role != Role.OWNER:
        st.error("Only an owner of the study may change how it runs. Ask one of them.")
        st.stop()
    st.markdown(summary())
    told()
    parts = {
        "People and invites": doors,
        "Handing out": handing_out,
        "Guidelines": guidelines,
        "Gold pairs": gold_pairs,
        "Reports": reports,
        "Record": record,
        "Studies": studies,
    }
    chosen = st.segmented_control(
        "Settings of",
        list(parts),
        default="People and invites",
        required=True,
        key="settings-part",
        label_visibility="collapsed",
    )
    parts[chosen]()


def summary() -> str:
    """How the study stands, before anything to change."""
    session, _ = here()
    room, users = labelling.assignment_settings(session), access.users(session)
    humans = sum(user.kind == Kind.HUMAN for user in users)
    waiting, opened = len(labelling.reports(session)), sum(state == "open" for _, state in access.invites(session))
    overlap = "everybody" if room.overlap is None else f"{room.overlap} {'people' if room.overlap != 1 else 'person'}"
    door = "Anybody with the address may join" if room.open else "People join by invite only"
    invites = f"{opened} invite{'s are' if opened != 1 else ' is'} open"
    problems = (
        f"**{waiting} reported problem{'s wait' if waiting != 1 else ' waits'} for you**"
        if waiting
        else "no reported problem waits"
    )
    return (
        f"**{session.record.name}** has {humans} {'people' if humans != 1 else 'person'}"
        + (f" and {len(users) - humans} simulated ones" if len(users) > humans else "")
        + f". Each pair goes to {overlap}. {door}; {invites}; {problems}."
    )


# ---- who gets which pair


def handing_out() -> None:
    session, _ = here()
    room = labelling.assignment_settings(session)
    usual = session.settings.reserve_seconds / 60
    with st.form("room", border=False):
        open_ = st.toggle(
            "Anybody with the address may join",
            value=room.open,
            key="room-open",
            help="Off, people come in by invite only. Who is in stays.",
        )
        left, right = st.columns(2, gap="large")
        with left:
            overlap = clearable(
                "People per pair",
                "room-overlap",
                room.overlap,
                placeholder="everybody",
                help="Empty: everybody may label every pair.",
            )
            order = st.selectbox(
                "New pairs come",
                list(ORDERS),
                index=list(ORDERS).index(room.order),
                format_func=ORDERS.get,
                key="room-order",
            )
            practice = st.number_input(
                "Practice pairs for a newcomer",
                value=room.practice,
                step=1,
                key="room-practice",
                help="Gold pairs with the answer told afterwards, before the first real pair.",
            )
            goal = clearable(
                "Labels a day as a goal",
                "room-goal",
                room.daily_goal,
                placeholder="no goal",
                help="Empty: no goal is shown.",
            )
            reserve = clearable(
                "Minutes a pair is reserved",
                "room-reserve",
                room.reserve_minutes,
                step=0.5,
                placeholder=f"{usual:g}, as the installation says",
                help="A pair that is not answered goes back to the others after this.",
            )
        with right:
            uniform = percent(
                "By chance",
                room.uniform,
                "room-uniform",
                "Of the pairs, while the model chooses the "
                "others. Only on these is it measured how well the model foresees people.",
            )
            repeats = percent(
                "A second time, sides swapped",
                room.repeats,
                "room-repeats",
                "Shows how consistent somebody is with themselves.",
            )
            gold = percent("Gold pairs", room.gold, "room-gold", "Pairs with a known answer, for attention only.")
            st.caption(
                "Shares of all pairs handed out; what is left is chosen in the order beside. Pairs that are on "
                "somebody's screen stay as they were given."
            )
        if st.form_submit_button("Save", type="primary", key="room-save"):
            save_room(
                dict(
                    overlap=overlap,
                    open=open_,
                    order=order,
                    uniform=uniform,
                    repeats=repeats,
                    gold=gold,
                    practice=practice,
                    reserve_minutes=reserve,
                    daily_goal=goal,
                )
            )


def percent(title: str, value: float, key: str, help: str) -> float:
    return st.slider(title, 0, 100, round(100 * value), format="%d %%", key=key, help=help) / 100


def save_room(settings: dict) -> None:
    try:
        room = AssignmentSettings(**settings)
    except CoplError as problem:
        st.error(str(problem))
        return
    attempt(labelling.set_assignment, room, done="Saved. Pairs are handed out this way from now on.")
    again()


# ---- what people are told


def guidelines() -> None:
    session, _ = here()
    now = labelling.guidelines(session)
    st.write(
        "Shown beside every pair, in Markdown. Each label stores the version it was made under, so a change never "
        "rewrites the past."
    )
    editor, preview = st.columns(2, gap="large")
    with editor:
        text = st.text_area("Guidelines", value=now.text, height=360, key=f"guidelines-{now.version}")
        st.button(
            f"Save as version {now.version + 1}",
            type="primary",
            key="guidelines-save",
            on_click=save_guidelines,
            args=(now.version,),
        )
    with preview:
        st.caption("As people see it")
        with st.container(border=True):
            st.markdown(text or "*Nothing yet.*")
    history()


def save_guidelines(version: int) -> None:
    """The text as it was when the button was pressed, which may be newer than the last drawing."""
    session, _ = here()
    text = st.session_state[f"guidelines-{version}"]
    if text.strip() == labelling.guidelines(session).text:
        st.session_state["settings-done"] = "The text is the same as before, so no new version was made."
    else:
        attempt(labelling.write_guidelines, text, done="The new version is shown from the next pair on.")


def history() -> None:
    session, _ = here()
    versions = labelling.guidelines_history(session)
    names = {user.id: user.name for user in access.users(session)}
    if versions:
        st.markdown("##### Versions")
    for one in versions:
        latest = " (shown now)" if one is versions[0] else ""
        with st.expander(f"Version {one.version}{latest}, {names.get(one.by, 'the product')}, {when(one.at)}"):
            st.markdown(one.text or "*Empty.*")
            if one is not versions[0]:
                st.button(
                    "Make this the newest version",
                    key=f"restore-{one.version}",
                    on_click=attempt,
                    args=(labelling.write_guidelines, one.text),
                    kwargs={"done": "The old text is shown again."},
                )


# ---- the record


def record() -> None:
    session, _ = here()
    entries = access.audit(session, limit=st.session_state.setdefault("record-length", SHOWN))
    people = {user.id: user.name for user in access.users(session)}
    events = sorted({entry.event for entry in entries})
    wanted = st.multiselect("Only", events, key="record-events", placeholder="every kind of change")
    shown = [entry for entry in entries if not wanted or entry.event in wanted]
    if not shown:
        st.write("Nothing has been changed yet.")
        return
    st.dataframe(
        [line(entry, people) for entry in shown],
        hide_index=True,
        width="stretch",
        height=420,
        alt="Who changed what",
        column_config={
            "when": st.column_config.DatetimeColumn(format="DD MMM YYYY, HH:mm", width="small"),
            "what": st.column_config.TextColumn(width="large"),
        },
    )
    if len(entries) == st.session_state["record-length"]:
        st.caption(f"The last {len(entries):,} changes.")
        if st.button("Show more", key="record-more"):
            st.session_state["record-length"] *= 5
            again()
    else:
        st.caption(
            f"All {len(entries):,} changes of roles, rules, labels, champions and imports, newest first; "
            "none of them can be removed here."
        )


def line(entry: AuditEntry, people: dict[int, str]) -> dict:
    detail = dict(entry.detail)
    if "user" in detail:
        detail["user"] = people.get(detail["user"], detail["user"])
    return {
        "when": entry.at.astimezone(),
        "who": people.get(entry.user_id, "the product"),
        "change": entry.event,
        "what": ", ".join(f"{name}: {value_of(value)}" for name, value in detail.items()),
    }


def value_of(value: object) -> str:
    if isinstance(value, list) and len(value) == 2:  # before and after
        return f"{value_of(value[0])} → {value_of(value[1])}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    try:
        return when(datetime.fromisoformat(value)) if isinstance(value, str) and "T" in value else str(value)
    except ValueError:
        return str(value)


# ---- simulated people and other studies


def studies() -> None:
    session, me = here()
    st.subheader("Simulated people")
    now = session.record.include_simulated
    wanted = st.toggle(
        "Include simulated people",
        value=now,
        key="settings-simulated",
        help="Off, they are in no picture, and the next snapshot is learned without them. Their labels "
        "are kept, so on brings them back.",
    )
    if wanted != now:
        access.include_simulated(session, wanted, by=me.id)
        again()
    st.subheader("Other studies")
    others = {one.id: one for one in access.studies(session) if one.id != session.id}
    if not others:
        st.write(
            "This installation has one study. A file that is imported under another name makes the next: "
            '`python -m copl_core import labels.jsonl --study "Its name"`.'
        )
        return
    st.write(
        "An installation shows one study at a time, to everybody. Opening another one signs you in there as an "
        "owner; the others sign in with their links of that study. Nothing of this one is lost."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Study", list(others), format_func=lambda one: others[one].name, width=320, key="other-study"
        )
        if st.button("Open it to everybody", key="open-study"):
            switch(chosen)


def switch(study_id: int) -> None:
    session, me = here()
    try:
        token = access.switch_study(session, study_id, by=me.id)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.session_state.update(user=None, token=token)
    st.query_params["token"] = token
    again()


page()
