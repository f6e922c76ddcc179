"""The labelling page: a question, two answers, one keystroke.

The question and the buttons stay in sight while one reads: at the top, and on a phone at the bottom of the screen.
Each button carries the id of the task that it was drawn for, and the study ignores an answer to a closed task: a key
never labels a pair that was not on the screen.
"""

from __future__ import annotations

import time

import streamlit as st

from copl_core.records import Choice, CoplError, Progress, Role, Task, counted
from copl_core.study import labelling
from copl_core.study_settings import Guidelines
from pages import account, scripts
from pages.common import current, in_a_sentence, on_touch, page_link
from pages.label_strip import strip
from pages.sending import TAGS, Given, set_message, store, try_again, waits
from pages.texts import draw_markdown, draw_prompt, draw_response

KEYS = {
    "1 or 2": "A or B is better",
    "Shift with 1 or 2": "A or B is much better",
    "Q or W": "A or B is slightly better",
    "0": "tie",
    "9": "both are bad",
    "S": "skip this pair for now",
    "Backspace": "undo the last step",
    "H or ?": "show or hide these keys",
    "Esc": "leave the field for your reason",
}
LONG, FOLDED = 2000, 420  # characters of an answer that is folded on a phone, and px of its box, which scrolls
LAYOUT = """<style>
[data-testid=stLayoutWrapper]:has(> .st-key-head) { position: sticky; top: 3.75rem; z-index: 20; }
.st-key-head { background: light-dark(#fdfcf9, #15181c); padding: .6rem 0 .5rem; gap: .6rem;
  border-bottom: 1px solid light-dark(#dcd8ce, #343a41); }
.st-key-question { max-height: 27vh; overflow-y: auto; }
.st-key-scale { justify-content: center; gap: .3rem 1rem; }
.st-key-bar { gap: .2rem; }
.copl-side { font-weight: 650; opacity: .8; font-size: .9rem; margin-bottom: -.7rem; }
@media (hover: none) {
  .st-key-bar kbd, .st-key-more kbd, .st-key-keys { display: none; }
}
@media (max-width: 640px) {
  .st-key-head { padding: .4rem 0; }
  .st-key-question { max-height: 24vh; }
  [data-testid=stLayoutWrapper]:has(> .st-key-bar) { position: fixed; left: 0; right: 0; bottom: 0; z-index: 30; }
  .st-key-bar { background: light-dark(#fdfcf9, #15181c); border-top: 1px solid light-dark(#dcd8ce, #343a41);
    padding: .5rem .7rem calc(.5rem + env(safe-area-inset-bottom)); }
  .st-key-votes { gap: .6rem; flex-wrap: nowrap; }
  .st-key-scale { display: grid; grid-template-columns: repeat(3, 1fr); gap: .1rem .4rem; }
  .st-key-scale :is([data-testid=stElementContainer], .stButton, button) { width: 100%; }
  .st-key-scale button { min-height: 2.3rem; padding: .1rem; justify-content: center; }
  .st-key-scale > :nth-child(1) { order: 4; } .st-key-scale > :nth-child(2) { order: 1; }
  .st-key-scale > :nth-child(3) { order: 2; } .st-key-scale > :nth-child(4) { order: 5; }
  .st-key-scale > :nth-child(5) { order: 3; } .st-key-scale > :nth-child(6) { order: 6; }
  [data-testid=stMainBlockContainer]:has(.st-key-bar) { padding-bottom: 11rem; }
}
.st-key-look-again { display: none; }
</style>"""


# ---- what a key does


@in_a_sentence
def answer(task_id: int, choice: Choice, strength: int, guidelines: int) -> None:
    """Store the answer to the task whose button was clicked, with the reason typed so far."""
    if waits():
        return
    shown = st.session_state.pop(f"shown-{task_id}", None)
    milliseconds = None if shown is None else int((time.monotonic() - shown) * 1000)
    reason, tags = st.session_state.get(f"reason-{task_id}") or "", st.session_state.get(f"tags-{task_id}") or ()
    store(Given(task_id, choice, strength, guidelines, reason, tuple(tags), milliseconds))


@in_a_sentence
def skip(task_id: int) -> None:
    if waits():
        return
    session, me = current()
    labelling.skip(session, task_id, me.id)
    set_message("Skipped; the pair comes back when no other pair is left.")


@in_a_sentence
def undo() -> None:
    if waits():
        return
    session, me = current()
    set_message("Your last step is undone." if labelling.undo(session, me.id) else "There is no step to undo.")


@in_a_sentence
def keep_draft(task_id: int) -> None:
    """Store what is typed, so that it survives a reload and a lost connection."""
    session, me = current()
    labelling.save_draft(
        session,
        task_id,
        me.id,
        st.session_state.get(f"reason-{task_id}") or "",
        tuple(st.session_state.get(f"tags-{task_id}") or ()),
    )


def toggle_keys() -> None:
    st.session_state["show keys"] = not st.session_state.get("show keys", False)


# ---- what is on the screen


@st.fragment
def page() -> None:
    st.html(LAYOUT)
    if waits():  # also while the database does not know who this is
        try_again()
        return
    session, me = current()
    task, progress = labelling.next_task(session, me.id), labelling.progress(session, me.id)
    account.welcome(None if task is None else progress.done)
    if task is None and not progress.done and not labelling.has_pairs(session):
        no_pairs()
        return
    if task is None:
        all_done(progress)
        return
    st.session_state.setdefault(f"shown-{task.id}", time.monotonic())
    guidelines = labelling.guidelines(session)
    new_guidelines = guidelines.text and guidelines.version != guidelines_read(progress)
    welcome(progress)
    if new_guidelines:
        with st.expander(f"Guidelines, version {guidelines.version}", expanded=True):
            draw_markdown(guidelines.text)
    strip(progress)
    with st.container(key="head"):
        question(task)
        bar(task, guidelines.version)
        last_step()
        if st.session_state.get("show keys"):  # in the head, which is in sight wherever one has scrolled to
            st.caption(" · ".join(f"**{key}** {what}" for key, what in KEYS.items()))
    both_responses(task)
    other_buttons(task)
    extras(task, None if new_guidelines else guidelines)
    footer(progress)
    st.button("Look again", key="look-again")
    scripts.run(scripts.LABELLING)
    scripts.run(scripts.TO_TOP, task=task.id)


def welcome(progress: Progress) -> None:
    """What this is, and why to label; until the first answer."""
    if progress.done == 0:
        st.write(
            "Choose the answer that you prefer. There is no right or wrong: the studio learns what you like, and after "
            "ten answers it shows you who answers like you and what your answers have in common."
        )


def no_pairs() -> None:
    """A new study has nothing to answer: who can change that, and where."""
    _, me = current()
    st.title("No pairs yet")
    if me.role != Role.OWNER:
        waiting = "An owner of the study imports them" if me.role == Role.RESEARCHER else "Come back a little later"
        st.write(f"This study has no pairs to answer yet. {waiting}.")
        return
    st.write("This study has no pairs to answer yet. Import a file of pairs or labels to begin.")
    if st.button("Import pairs", key="to-import", type="primary"):
        st.session_state["settings-part"], st.session_state["import wanted"] = "Studies", True
        st.switch_page("pages/settings.py")


def all_done(progress: Progress) -> None:
    """No pair is left: what the person's answers have led to, and where to look at it."""
    st.title("All done")
    st.write("You have answered every pair that is available to you. Thank you.")
    strip(progress)
    with st.container(horizontal=True, key="ways"):
        page_link("taste", "My taste: what your answers say about you")
        page_link("people", "People: who answers like you")
    st.button("Undo", key="undo", shortcut="Backspace", on_click=undo, type="tertiary")
    footer(progress)


def guidelines_read(progress: Progress) -> int | None:
    """The version under which the person answered last; None before the first answer."""
    session, me = current()
    if "guidelines read" not in st.session_state:
        labels = labelling.labels_of(session, me.id) if progress.done else []
        st.session_state["guidelines read"] = labels[-1].guidelines if labels else None
    return st.session_state["guidelines read"]


def question(task: Task) -> None:
    with st.container(key="question"):
        if task.reason == "practice":
            st.caption("Practice: the known answer is shown after yours.")
        draw_prompt(task.prompt)


def bar(task: Task, guidelines: int) -> None:
    """Every button that answers.  The keys Q and W lie below 1 and 2; Alt with a number belongs to browsers."""
    with st.container(key="bar"):
        with st.container(key="votes", horizontal=True):
            vote(task, guidelines, "A is better", "1", Choice.LEFT, 2, "primary", "stretch")
            vote(task, guidelines, "B is better", "2", Choice.RIGHT, 2, "primary", "stretch")
        with st.container(key="scale", horizontal=True):
            vote(task, guidelines, "A, much", "Shift+1", Choice.LEFT, 3)
            vote(task, guidelines, "A, slightly", "Q", Choice.LEFT, 1)
            vote(task, guidelines, "Tie", "0", Choice.TIE, 1)
            vote(task, guidelines, "Both bad", "9", Choice.BOTH_BAD, 1)
            vote(task, guidelines, "B, slightly", "W", Choice.RIGHT, 1)
            vote(task, guidelines, "B, much", "Shift+2", Choice.RIGHT, 3)


def vote(
    task: Task,
    guidelines: int,
    words: str,
    shortcut: str,
    choice: Choice,
    strength: int,
    look: str = "tertiary",
    width: str = "content",
) -> None:
    """One button that answers the task and no other: its key and its arguments name the task."""
    name = words.lower().replace(",", "").replace(" ", "-")
    st.button(
        words,
        key=f"{name}-{task.id}",
        shortcut=shortcut,
        type=look,
        width=width,
        on_click=answer,
        args=(task.id, choice, strength, guidelines),
    )


def both_responses(task: Task) -> None:
    for column, letter, side, response in zip(
        st.columns(2, gap="medium"), "AB", ("left", "right"), (task.left, task.right), strict=True
    ):
        with column:
            st.html(f'<div class="copl-side">{letter}</div>')
            opened = f"whole-{side}-{task.id}"
            folds = on_touch() and len(response.text) > LONG  # B and the buttons below lie far away on a phone
            height = FOLDED if folds and not st.session_state.get(opened) else "stretch"
            with st.container(border=True, height=height, key=f"response-{side}"):
                draw_response(response.text)
            if folds:
                st.toggle(f"Show all of {letter}", key=opened)


def other_buttons(task: Task) -> None:
    with st.container(horizontal=True, horizontal_alignment="center", key="more"):
        st.button("Skip", key=f"skip-{task.id}", shortcut="S", on_click=skip, args=(task.id,))
        st.button("Undo", key="undo", shortcut="Backspace", on_click=undo, type="tertiary")
        st.button("Keys", key="keys", shortcut="H", on_click=toggle_keys, type="tertiary")


def extras(task: Task, guidelines: Guidelines | None) -> None:
    """What most pairs do not need: a reason, the guidelines once they are read, a problem report."""
    reason(task)
    with st.container(horizontal=True):
        if guidelines is not None and guidelines.text:
            with st.popover(f"Guidelines, version {guidelines.version}"):
                draw_markdown(guidelines.text)
        with st.popover("Report a problem", type="tertiary"):
            report(task)


def reason(task: Task) -> None:
    """Tags and words; the fields begin with the draft, and what is typed becomes the draft."""
    session, me = current()
    draft = labelling.draft(session, task.id, me.id)
    opened = st.session_state.setdefault(f"reason-opened-{task.id}", bool(draft.text or draft.tags))
    st.session_state.setdefault(f"tags-{task.id}", [tag for tag in draft.tags if tag in TAGS])
    st.session_state.setdefault(f"reason-{task.id}", draft.text)
    with st.expander("Say why (optional)", expanded=opened):
        st.pills(
            "What is better about it?",
            TAGS,
            help="Tags teach the model too, where they make it predict better.",
            selection_mode="multi",
            key=f"tags-{task.id}",
            on_change=keep_draft,
            args=(task.id,),
        )
        st.text_area(
            "In your words",
            key=f"reason-{task.id}",
            on_change=keep_draft,
            args=(task.id,),
            height=96,
            max_chars=2000,
            help="Kept as a draft while you type, and stored with your answer. While you type here, the shortcut keys "
            "are off; Esc leaves the field.",
        )


def report(task: Task) -> None:
    session, me = current()
    which = st.radio("With which answer?", ["A", "B"], index=None, horizontal=True, key=f"report-side-{task.id}")
    words = st.text_area("What is wrong with it?", key=f"report-{task.id}", max_chars=2000)
    if st.button("Send to the study's owner", key=f"send-{task.id}"):
        if which is None:
            st.error("Nothing is sent yet: choose the answer that the problem is with, A or B.")
            return
        try:
            labelling.report(session, me.id, (task.left if which == "A" else task.right).id, words)
        except CoplError as problem:
            st.error(str(problem))
        else:
            st.success("Sent. Thank you; you can still answer the pair or skip it.")


def last_step() -> None:
    """The last step in words, once: in the head, since the footer lies below long answers."""
    if message := st.session_state.pop("message", ""):
        st.caption(message)


def footer(progress: Progress) -> None:
    """The person's progress."""
    session, _ = current()
    last_step()
    goal = labelling.assignment_settings(session).daily_goal
    if goal:
        st.progress(min(1.0, progress.today / goal), text=f"{progress.today:,} of {goal:,} today")
    st.caption(f"{progress.done:,} answered, {progress.today:,} of them today, {counted(progress.left, 'pair')} left.")


page()
