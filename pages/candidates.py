"""A part of the reward page: a local language model writes answers, streamed until it ends or is stopped.

The answers appear below the button that asks for them, and a bar says from the first second what the model does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import rewards
from copl_core.study import writing as write_runs
from copl_core.study.session import Session
from pages.common import current, rerun
from pages.sight import into_sight
from pages.texts import response_html

LETTERS = "ABCDEF"
BUNDLED = "smollm2"


@dataclass
class Writing:
    """Answers that are being written; kept in the session, so that the text so far survives a stop."""

    prompt: str
    styles: list  # of copl_core's Style
    model: str
    max_tokens: int
    seed: int
    begun: bool = False
    ended: bool = False  # by itself: a text then ends with its last whole sentence
    texts: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)  # typed answers to keep
    typed: list[str] = field(default_factory=list)  # every typed answer, restored if nothing is written

    @property
    def by(self) -> list[str]:
        return [""] * len(self.before) + [f"{self.model}, {style.name.lower()}" for style in self.styles]

    @property
    def written(self) -> list[str]:
        return [rewards.whole_sentences(text) for text in self.texts] if self.ended else self.texts


def writing() -> Writing | None:
    return st.session_state.get("writing")


@dataclass(frozen=True)
class Drafts:
    prompt: str
    texts: list[str]
    by: list[str]


def finish() -> Drafts | None:
    """The written answers, returned once: the next run of the page ends the writing, complete or not."""
    job = writing()
    if job is None or not job.begun:
        return None
    st.session_state["writing"] = None
    if not any(text.strip() for text in job.texts):
        return Drafts(job.prompt, job.typed, [])
    found: dict[str, str] = {}  # text → author; two styles may write the same text
    for text, by in zip([*job.before, *job.written], job.by, strict=True):
        if text.strip():
            found.setdefault(text.strip(), by)
    return Drafts(job.prompt, list(found), list(found.values()))


def field(name: str) -> str:
    """The widget key of one of the page's text fields; each fill makes new fields, see ``fill`` of the page."""
    return f"{name} {st.session_state.get('filled', 0)}"


def writer_controls(most: int):
    """Styles, temperature, length and model of the writer, and its button; returns the area below the button."""
    styles = {style.name: style for style in rewards.styles}
    with st.expander("Let a language model write answers", key="writer", on_change="rerun") as box:
        if not box.open:
            return st.container()
        chosen = st.multiselect(
            "Styles (one answer each)",
            list(styles),
            default=list(styles)[:3],
            max_selections=4,
            key="styles",
            help="Each style has its own instruction and its own temperature. A higher temperature chooses less "
            "likely words more often.",
        )
        heat, length, name = st.columns(3, gap="medium")
        temperature = heat.slider(
            "Temperature",
            0.0,
            2.0,
            1.0,
            0.1,
            key="temperature",
            format="%.1f ×",
            help="Multiplies the temperature of every style; 0 always takes the most likely word.",
        )
        max_tokens = length.number_input(
            "Longest answer, in tokens (about ¾ of a word each)",
            4,
            400,
            100,
            key="longest",
        )
        model = name.text_input(
            "Language model",
            BUNDLED,
            key="model",
            help="smollm2 comes with the studio. You can also name a model saved by transformers by its folder, below "
            "the studio's folder of models (COPL_MODELS), or by its id if it is in this machine's Hugging Face cache; "
            "nothing is downloaded, and no code of a model is run.",
        )
        keep = st.checkbox("Keep the answers above", key="keep")
        if st.session_state.get("write-problem"):
            st.error(st.session_state["write-problem"])
        if st.button("Write answers", key="write", disabled=not chosen or writing() is not None):
            start(most, [styles[name] for name in chosen], temperature, int(max_tokens), model.strip(), keep)
        st.caption(
            f"The model runs on {machine()}. A model this small writes fluently and is often wrong: its answers "
            "differ in style, not in quality. An answer may run a little longer to finish its sentence."
        )
        return st.container()


def machine() -> str:
    """Where the next answers are written, in words."""
    session, _ = current()
    hosts = sorted({one.host for one in write_runs.writers(session)})
    return f"a trainer ({', '.join(hosts)})" if hosts else "this machine"


def start(most: int, styles: list, temperature: float, max_tokens: int, model: str, keep: bool) -> None:
    st.session_state["write-problem"] = ""
    typed = [st.session_state.get(field(f"response-{i}"), "").strip() for i in range(st.session_state["count"])]
    before = [text for text in typed if text][: most - 1] if keep else []
    styles = [
        type(style)(style.name, style.instruction, style.temperature * temperature)
        for style in styles[: most - len(before)]
    ]
    st.session_state["seed"] = st.session_state.get("seed", -1) + 1  # pressing the button again writes other texts
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
    rerun()


@st.cache_resource(max_entries=1, show_spinner=False)
def language_model(_session: Session, model: str):
    return rewards.writer(_session, model)


def write() -> None:
    """Stream the answers into the page.  A click on Stop, or on any other widget, reruns the page, which ends it."""
    session, _ = current()
    job = writing()
    st.button("Stop writing", key="stop", icon=":material/stop:", width="stretch")
    bar = st.empty()
    boxes = []
    for i, style in enumerate(job.styles):
        st.caption(f"Answer {LETTERS[len(job.before) + i]} · {style.name}, temperature {style.temperature:.1f}")
        boxes.append(st.container(border=True, key=f"draft-{i}").empty())
    into_sight("stop")
    job.begun = True
    try:
        bar.progress(0.0, "Loading the language model: half a minute the first time")
        stream(job, pieces_of(job), bar, boxes)
    except CoplError as problem:
        st.session_state["write-problem"] = str(problem)
    rerun()


def pieces_of(job: Writing) -> Iterator[tuple[int, str]]:
    """What a trainer writes, where one that is at work offers that, else what the model here does."""
    session, me = current()
    if write_runs.writers(session):
        request = write_runs.WriteRequest(job.prompt, tuple(job.styles), job.model, job.max_tokens, job.seed)
        return write_runs.written_elsewhere(session, request, by=me.id)
    model = language_model(session, job.model)
    return model.write(job.prompt, job.styles, max_tokens=job.max_tokens, seed=job.seed)


def stream(job: Writing, stream_of_pieces: Iterator[tuple[int, str]], bar, boxes: list) -> None:
    """Write into the boxes, and say on the bar how far the longest answer is."""
    pieces = [0] * len(boxes)
    bar.progress(0.0, "The model reads the question")
    with closing(stream_of_pieces):
        for row, piece in stream_of_pieces:
            job.texts[row] += piece
            pieces[row] += bool(piece)
            boxes[row].html(response_html(job.texts[row]))
            done = min(1.0, max(pieces) / job.max_tokens)
            if any(pieces):
                about = f"Writing: about {done:.0%} of the longest answer" if done < 1 else "Finishing a sentence"
                bar.progress(done, about)
    job.ended = True


def blank(count: int) -> None:
    """Cover what an earlier run drew here: streamlit removes it only at the end of this run, which takes a while."""
    for _ in range(count):
        st.empty()
