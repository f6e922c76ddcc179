"""A part of the reward page: a local language model writes the answers, word by word, until it ends or is stopped."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import rewards
from copl_core.study.session import Session
from pages.common import again, here, readable

LETTERS = "ABCDEF"
BUNDLED = "smollm2"


@dataclass
class Writing:
    """Answers in the making; kept in the session, so that what is written survives a stop."""

    prompt: str
    styles: list  # of copl_core's Style
    model: str
    max_tokens: int
    seed: int
    begun: bool = False
    texts: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)  # typed answers that stay
    typed: list[str] = field(default_factory=list)  # all of them, to come back if nothing is written

    @property
    def by(self) -> list[str]:
        return [""] * len(self.before) + [f"{self.model}, {style.name.lower()}" for style in self.styles]


def writing() -> Writing | None:
    return st.session_state.get("writing")


@dataclass(frozen=True)
class Drafts:
    prompt: str
    texts: list[str]
    by: list[str]


def finish() -> Drafts | None:
    """What was written, told once: any run of the page that finds a begun writing ends it, be it done or stopped."""
    now = writing()
    if now is None or not now.begun:
        return None
    st.session_state["writing"] = None
    if not any(text.strip() for text in now.texts):
        return Drafts(now.prompt, now.typed, [])
    found: dict[str, str] = {}  # two styles may come to the same words
    for text, by in zip([*now.before, *now.texts], now.by, strict=True):
        if text.strip():
            found.setdefault(text.strip(), by)
    return Drafts(now.prompt, list(found), list(found.values()))


def field(name: str) -> str:
    """The key of one of the page's fields for texts; they are new ones each time that they are filled."""
    return f"{name} {st.session_state.get('filled', 0)}"


def offer(most: int) -> None:
    """The controls of the writer."""
    session, _ = here()
    styles = {style.name: style for style in rewards.styles}
    with st.expander("Let a language model write answers", key="writer", on_change="rerun") as box:
        if not box.open:
            return
        chosen = st.multiselect(
            "Styles, one answer each",
            list(styles),
            default=list(styles)[:3],
            max_selections=4,
            key="styles",
            help="Each style has an instruction and a temperature of its own: the "
            "higher, the less likely the words that are chosen.",
        )
        warmth = st.slider(
            "Temperature",
            0.0,
            2.0,
            1.0,
            0.1,
            key="warmth",
            format="%.1f ×",
            help="Multiplies that of every style; 0 always takes the likeliest word.",
        )
        max_tokens = st.number_input("Longest answer, in tokens (about ¾ of a word each)", 4, 400, 100, key="longest")
        model = st.text_input(
            "Language model",
            BUNDLED,
            key="model",
            help="smollm2 comes with the studio. Or the folder of a model saved by transformers, or "
            "the id of one in this machine's Hugging Face cache; nothing is downloaded.",
        )
        keep = st.checkbox("Keep the answers above", key="keep")
        if st.session_state.get("write-problem"):
            st.error(st.session_state["write-problem"])
        if st.button("Write answers", key="write", disabled=not chosen or writing() is not None):
            start(most, [styles[name] for name in chosen], warmth, int(max_tokens), model.strip(), keep)
        st.caption(
            "It runs on this machine. A model this small writes fluently and is often wrong: its answers are "
            "there to differ in manner."
        )


def start(most: int, styles: list, warmth: float, max_tokens: int, model: str, keep: bool) -> None:
    st.session_state["write-problem"] = ""
    typed = [st.session_state.get(field(f"response-{i}"), "").strip() for i in range(st.session_state["count"])]
    before = [text for text in typed if text][: most - 1] if keep else []
    styles = [
        type(style)(style.name, style.instruction, style.temperature * warmth) for style in styles[: most - len(before)]
    ]
    st.session_state["seed"] = st.session_state.get("seed", -1) + 1  # the same styles again write something else
    st.session_state["writing"] = Writing(
        st.session_state[field("prompt")],
        styles,
        model,
        max_tokens,
        st.session_state["seed"],
        texts=[""] * len(styles),
        before=before,
        typed=typed,
    )
    again()


@st.cache_resource(max_entries=1, show_spinner="Loading the language model (half a minute the first time)")
def language_model(_study: Session, model: str):
    return rewards.writer(_study, model)


def write() -> None:
    """Stream the answers into their places.  A press of Stop, or of anything else, runs the page anew: that ends it."""
    session, _ = here()
    now = writing()
    blank(len(now.typed) + 1)  # over the fields and their buttons
    st.button("Stop writing", key="stop", icon=":material/stop:", width="stretch")
    boxes = []
    for i, style in enumerate(now.styles):
        st.caption(f"Answer {LETTERS[len(now.before) + i]} · {style.name}, temperature {style.temperature:.1f}")
        boxes.append(st.container(border=True, key=f"draft-{i}").empty())
    now.begun = True
    try:
        pieces = language_model(session, now.model).write(
            now.prompt, now.styles, max_tokens=now.max_tokens, seed=now.seed
        )
        for row, piece in pieces:
            now.texts[row] += piece
            boxes[row].markdown(readable(now.texts[row]))
    except CoplError as problem:
        st.session_state["write-problem"] = str(problem)
    again()


def blank(count: int) -> None:
    """Cover what an earlier run drew here; it would fade away only when this run, which takes its time, has ended."""
    for _ in range(count):
        st.empty()
