"""The labelling page: a question, two answers, one keystroke.

The buttons stand above the texts, so that they stay in place when the next pair is longer.  Each button carries the id
of the task that it was drawn for, and the study ignores an answer to a closed task: a key never labels a pair that was
not on the screen.
"""

from __future__ import annotations

import time

import streamlit as st

from copl_core.records import Choice, CoplError, Response, Task
from copl_core.study import labelling, user_map
from copl_core.study.views import Feedback
from pages.common import current, group_name
from pages.texts import draw_markdown, draw_prompt, draw_response

TAGS = ("clearer", "more correct", "more helpful", "kinder", "better length", "better example", "style")
KEYS = {
    "1 or 2": "left or right is better",
    "Shift with 1 or 2": "left or right is much better",
    "Q or W": "left or right is slightly better",
    "0": "tie",
    "9": "both are bad",
    "S": "skip this pair for now",
    "Backspace": "undo the last step",
    "H or ?": "show or hide these keys",
}
BELOW = {"1": "Q", "2": "W"}  # the keys below on most keyboards; Alt with a number belongs to browsers
# What has to happen in the browser.  A question mark cannot be a button's shortcut, so it clicks the button of H.
# Shortcuts are off while the person types.  Repeated key events of a held key do nothing, and neither does the second
# click of a double click if the next pair has appeared in between.  After a lost connection the page runs again, since
# its last answer may have been stored.
BROWSER = """<style>.st-key-again {display: none}</style><script>
if (!window.coplKeys) {
  window.coplKeys = true;
  window.addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, textarea, [contenteditable=true]")) return;
    if (event.repeat && (event.key.length === 1 || event.key === "Backspace")) event.stopImmediatePropagation();
    else if (event.key === "?") document.querySelector(".st-key-keys button")?.click();
  }, true);
  let clicked = null;
  window.addEventListener("click", (event) => {
    const button = event.target.closest?.("[class*=st-key-]")?.className.match(/st-key-\\S+-\\d+/)?.[0];
    if (event.detail > 1 && button && button !== clicked) { event.stopImmediatePropagation(); event.preventDefault(); }
    clicked = button;
  }, true);
  const app = document.querySelector("[data-testid=stApp]");
  let lost = false;
  new MutationObserver(() => {
    const connected = app.dataset.testConnectionState === "CONNECTED";
    if (connected && lost) setTimeout(() => document.querySelector(".st-key-again button")?.click(), 100);
    lost = !connected;
  }).observe(app, {attributeFilter: ["data-test-connection-state"]});
}
</script>"""


# ---- what a key does


def answer(task_id: int, choice: Choice, strength: int, guidelines: int) -> None:
    """Store the answer to the task whose button was clicked, with the reason typed so far."""
    session, me = current()
    shown = st.session_state.pop(f"shown-{task_id}", None)
    milliseconds = None if shown is None else int((time.monotonic() - shown) * 1000)
    reason, tags = st.session_state.get(f"reason-{task_id}") or "", st.session_state.get(f"tags-{task_id}") or ()
    receipt = labelling.submit(
        session,
        task_id,
        me.id,
        choice,
        strength=strength,
        reason=reason,
        tags=tags,
        milliseconds=milliseconds,
        guidelines=guidelines,
    )
    if receipt.label is None:
        set_message("That pair was closed already, so the key did nothing.")
    elif receipt.feedback is not None:
        set_message(verdict(receipt.feedback))


def skip(task_id: int) -> None:
    session, me = current()
    labelling.skip(session, task_id, me.id)
    set_message("Skipped; the pair comes back when no other pair is left.")


def undo() -> None:
    session, me = current()
    set_message("Your last step is undone." if labelling.undo(session, me.id) else "There is no step to undo.")


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


def set_message(sentence: str) -> None:
    """A sentence for the footer of the next run."""
    st.session_state["message"] = sentence


def verdict(feedback: Feedback) -> str:
    return "Practice: that is the known answer." if feedback.right else "Practice: the other answer is the known one."


# ---- what is on the screen


@st.fragment
def page() -> None:
    session, me = current()
    task = labelling.next_task(session, me.id)
    if task is None:
        st.title("All done")
        st.write("You have answered every pair that is available to you. Thank you.")
        st.button("Undo", key="undo", shortcut="Backspace", on_click=undo, type="tertiary")
        footer()
        return
    st.session_state.setdefault(f"shown-{task.id}", time.monotonic())
    guidelines = labelling.guidelines(session)
    st.caption("Practice: which answer do you prefer?" if task.reason == "practice" else "Which answer do you prefer?")
    draw_prompt(task.prompt)
    left, right = st.columns(2, gap="medium")
    with left:
        side(task, task.left, Choice.LEFT, "Left", "1", guidelines.version)
    with right:
        side(task, task.right, Choice.RIGHT, "Right", "2", guidelines.version)
    other_buttons(task, guidelines.version)
    if st.session_state.get("show keys"):
        st.markdown("\n".join(f"- **{key}**: {what}" for key, what in KEYS.items()))
    extras(task, guidelines)
    footer()
    st.button("Look again", key="again")
    st.html(BROWSER, unsafe_allow_javascript=True)


def side(task: Task, response: Response, choice: Choice, name: str, key: str, guidelines: int) -> None:
    """One column: the buttons that prefer this side, and its text."""
    st.button(
        name,
        key=f"{name.lower()}-{task.id}",
        shortcut=key,
        type="primary",
        width="stretch",
        on_click=answer,
        args=(task.id, choice, 2, guidelines),
        help=f"{name} is better",
    )
    with st.container(horizontal=True, horizontal_alignment="center", gap="small"):
        for words, shortcut, strength in (("slightly", BELOW[key], 1), ("much", f"Shift+{key}", 3)):
            st.button(
                f"{name}, {words}",
                key=f"{name.lower()}-{words}-{task.id}",
                shortcut=shortcut,
                type="tertiary",
                on_click=answer,
                args=(task.id, choice, strength, guidelines),
            )
    with st.container(border=True, height="stretch", key=f"response-{name.lower()}"):
        draw_response(response.text)


def other_buttons(task: Task, guidelines: int) -> None:
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button("Tie", key=f"tie-{task.id}", shortcut="0", on_click=answer, args=(task.id, Choice.TIE, 1, guidelines))
        st.button(
            "Both bad",
            key=f"both-bad-{task.id}",
            shortcut="9",
            on_click=answer,
            args=(task.id, Choice.BOTH_BAD, 1, guidelines),
        )
        st.button("Skip", key=f"skip-{task.id}", shortcut="S", on_click=skip, args=(task.id,))
        st.button("Undo", key="undo", shortcut="Backspace", on_click=undo, type="tertiary")
        st.button("Keys", key="keys", shortcut="H", on_click=toggle_keys, type="tertiary")


def extras(task: Task, guidelines) -> None:
    """What most pairs do not need: a reason, the guidelines, a problem report."""
    session, me = current()
    draft = labelling.draft(session, task.id, me.id)
    with st.expander("Say why (optional)", expanded=bool(draft.text or draft.tags)):
        st.pills(
            "Because it is",
            TAGS,
            selection_mode="multi",
            default=[tag for tag in draft.tags if tag in TAGS],
            key=f"tags-{task.id}",
            on_change=keep_draft,
            args=(task.id,),
        )
        st.text_area(
            "In your words",
            value=draft.text,
            key=f"reason-{task.id}",
            on_change=keep_draft,
            args=(task.id,),
            height=80,
            max_chars=2000,
            help="Stored with your answer. While you type here, the shortcut keys are off.",
        )
    with st.container(horizontal=True):
        if guidelines.text:
            with st.popover(f"Guidelines, version {guidelines.version}"):
                draw_markdown(guidelines.text)
        with st.popover("Report a problem", type="tertiary"):
            report(task)


def report(task: Task) -> None:
    session, me = current()
    which = st.radio("With which answer?", ["Left", "Right"], horizontal=True, key=f"report-side-{task.id}")
    words = st.text_area("What is wrong with it?", key=f"report-{task.id}", max_chars=2000)
    if st.button("Send to the study's owner", key=f"send-{task.id}"):
        try:
            labelling.report(session, me.id, (task.left if which == "Left" else task.right).id, words)
        except CoplError as problem:
            st.error(str(problem))
        else:
            st.success("Sent. Thank you; you can still answer the pair or skip it.")


def footer() -> None:
    """The person's progress, and whom the model thinks they answer like."""
    session, me = current()
    if message := st.session_state.pop("message", ""):
        st.caption(message)
    progress, goal = labelling.progress(session, me.id), labelling.assignment_settings(session).daily_goal
    if goal:
        st.progress(min(1.0, progress.today / goal), text=f"{progress.today:,} of {goal:,} today")
    st.caption(
        f"{progress.done:,} answered, {progress.today:,} of them today, {progress.left:,} pairs left. {position()}"
    )


def position() -> str:
    """The group that the person answers most like; empty before the first snapshot and the first label."""
    session, me = current()
    try:
        found = user_map.position(session, me.id)
    except Exception:  # a broken snapshot must not stop anybody from labelling; the pages that show it report it
        return ""
    if found is None or found.n_labels == 0:
        return ""
    if found.group is None:
        return "The model has not found people like you yet."
    return f"So far you answer most like {group_name(found.group)} ({found.group_share:.0%} sure)."


page()
