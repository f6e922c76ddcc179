"""A section of the Study page: what the model tells about people, as the last audit measured it."""

from __future__ import annotations

import streamlit as st

from copl_core.command_line import command
from copl_core.study import privacy
from copl_core.study.privacy import LastAudit, Measured
from pages import shared
from pages.common import current
from pages.members import when

QUESTIONS = {
    "label": "Was this answer in training?",
    "person": "Was this person in training?",
    "answer": "Which of two answers did somebody prefer?",
    "attribute": "Who belongs to which group, or has which attribute?",
    "reward": "Was this answer in training, by the text reward alone?",
}
MEANINGS = {
    "label": "Someone knows a person and a pair, and wants to know whether the model learned from the person's answer.",
    "person": "Someone knows all answers of a person, and wants to know whether the model learned from them.",
    "answer": "Someone knows that a person answered a pair, and wants the answer. Answers that the model has not seen "
    "can be guessed too: that is what it is made for. What learned ones are found better is what it gives away.",
    "attribute": "Someone has the embeddings, and the attribute of some people.",
    "reward": "The text reward of the snapshot, on the answers it learned from and on those it held out.",
}
KNOBS = "What would hide it, and what that costs"
KNOB_MEANING = (
    "The best attack on single answers behind each measure, beside the accuracy that is left on answers that the model "
    "has not seen. Rewards are in log-odds. Noise that is drawn for every question can be averaged away."
)
ADVICE = (
    "- **Snapshots and bundles hold the answers themselves.** Hand them only to people who may read them.\n"
    "- **Rewards of single people** tell which answers were learned. The reward server rounds them to 0.1, which "
    "hides little of it, and a token of the role `people` gets them in full. A token of the role `groups` gets "
    f"groups of five or more people alone: `{command('token make NAME --role groups')}`.\n"
    "- **An exported model** of a person is their taste. One of a group or of everybody tells least.\n"
    "- **Nothing here is protected by a guarantee.** Private vectors would be, and the table shows what they cost; the "
    "studio does not use them."
)


def section() -> None:
    what_is_told()
    shared.settings()


def what_is_told() -> None:
    session, _ = current()
    st.write(
        "What can somebody find out about people from what the model says? An audit fits models to half of the "
        "answers, or of the people, and attacks them."
    )
    found = privacy.last(session)
    if found is None:
        st.info(
            f"Nothing is measured yet. In a terminal of the studio's machine: `{command('audit')}`. It takes "
            "some minutes for 150 people with 15 answers each, longer for more or on a busy machine, and changes "
            "nothing but these figures."
        )
        return
    st.markdown(lead(found))
    if found.n_left_out:
        st.warning(privacy.since_left_out(found.n_left_out), icon=":material/person_off:")
    if not found.is_champion:
        st.warning(
            f"The figures are of snapshot {found.snapshot}; a newer one is champion. `{command('audit')}` "
            "measures again.",
            icon=":material/history:",
        )
    for part, question in QUESTIONS.items():
        if rows := found.of(part):
            st.subheader(question)
            st.caption(MEANINGS[part])
            table(part, rows)
    if rows := found.of("knob"):
        st.subheader(KNOBS)
        st.caption(KNOB_MEANING)
        table("knob", rows)
    st.subheader("What you can do")
    st.markdown(ADVICE)


def lead(found: LastAudit) -> str:
    """Whose labels, when, and how to read the numbers."""
    return (
        f"Snapshot **{found.snapshot}**, measured {when(found.at)} on {found.n_labels:,} answers of {found.n_people:,} "
        "people. **AUC** is the probability that an attack ranks what was in training above what was not: **0.5 is "
        "chance**, 1 tells everything. **Found**: the share that is found if one in a hundred others may be "
        "taken for it."
    )


def table(part: str, rows: list[Measured]) -> None:
    st.dataframe(
        [row(part, one) for one in rows],
        hide_index=True,
        width="stretch",
        height="content",
        key=f"privacy-{part}",
        alt=QUESTIONS.get(part, KNOBS),
        placeholder="–",
        column_config={
            name: st.column_config.NumberColumn(format="%.2f")
            for name in ("AUC", "chance", "accuracy", "without it", "most frequent")
        }
        | {"found": st.column_config.NumberColumn(format="percent")},
    )


def row(part: str, one: Measured) -> dict:
    cells = {
        "measure" if part == "knob" else "who sees": one.observer,
        "AUC": one.auc,
        "chance": 0.5,
        {"answer": "of", "attribute": "attribute"}.get(part, "attack"): one.attack,
        "95%": f"{one.low:.2f} to {one.high:.2f}",
    }
    if part not in ("answer", "attribute") and one.found is not None:
        cells["found"] = round(one.found, 2)
    if one.accuracy is not None:
        share, low, high = one.accuracy
        cells |= {"accuracy": share, "its 95%": f"{low:.2f} to {high:.2f}"}
    if one.baseline is not None:
        cells["most frequent" if part == "attribute" else "without it"] = one.baseline
    return cells
