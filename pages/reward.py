"""Predict which answer people and groups would prefer, also for texts that the study has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

import streamlit as st

from copl_core.records import LONGEST_TEXT, CoplError, User
from copl_core.study import access, contents, controversy, labelling, rewards
from copl_core.study.session import Session
from copl_core.turns import title_of
from pages.candidates import blank, field, finish, write, writer_controls, writing
from pages.common import (
    champion_here,
    current,
    group_name,
    in_a_sentence,
    is_id,
    listing,
    no_snapshot,
    person_name,
    watch_champion,
    who_is_simulated,
)
from pages.find_people import find_people
from pages.five_answers import answers, asking, five_answers, try_button
from pages.reward_results import LETTERS, attribution, choosing, experts, table, verdict
from pages.sight import into_sight
from pages.texts import literal

MOST = 6  # answers
MOST_KEPT = 500  # users whose texts are kept, of each study
IN_A_ROW = 3  # of their fields
MOST_NAMED = 4  # people in the first sentence
FIRST = 5  # own answers; from then on one can compare oneself after these with oneself after all


def page() -> None:
    session, _ = current()
    st.title("Reward")
    who_is_simulated()
    if session.record.champion is None:
        no_snapshot("A reward")
    champion_here()
    restore()
    with st.container():  # always there: otherwise everything below is drawn twice while the first pair comes
        five_answers()
    with st.container(key="ask"):
        query, area = query_form()
    # Hidden fields keep what was typed.  The style is drawn in every run: one left out would stay until the run ends.
    st.html(f"<style>.st-key-ask {{ display: {'none' if asking() else 'flex'}; }}</style>")
    with st.container(key="answer"):
        if st.session_state.pop("answer wanted", False):
            into_sight("answer")
        view = prediction(query)
    if view is not None:
        choosing(view)
        attribution(view, query)
        experts(view)
        table(view)
    if writing() is None:
        watch_champion(session.record.champion)
        return
    blank(50)
    with area:
        write()  # last, since it takes a while


# ---- the query: a question, answers, people and groups


def restore() -> None:
    """Fill the fields when the page opens: with written answers, the linked texts, those last in the fields, or an
    example.
    """
    session, me = current()
    if "people" not in st.session_state:
        st.session_state["people"] = st.session_state.get("people before") or [
            *(linked_people(session) or [f"user {me.id}"]),
            *(f"group {group}" for group in groups_of_snapshot(session)),
        ]
    drafts = finish()
    if drafts:
        fill(drafts.prompt, drafts.texts, drafts.by)
        keep(drafts.prompt, drafts.texts)
        unlink()
        st.session_state["answer wanted"] = True
        if not st.session_state.get("write-problem"):
            st.session_state["writer"] = False  # the answers are in the fields now
    elif not st.session_state.get("just filled") and field("prompt") not in st.session_state:
        fill(
            *(
                linked_texts(session)
                or kept_texts().get(me.id)
                or st.session_state.get("query")
                or example(session, session.id, session.record.champion)
                or ("", [])
            )
        )


def fill(prompt: str, texts: list[str], by: list[str] | None = None) -> None:
    """Put texts into new fields and make them the query.

    New fields, because streamlit sends a field's default value in every run but a value set later in one run only, and
    a browser that is busy with an earlier run may never draw the later one.
    """
    st.session_state["filled"], st.session_state["just filled"] = st.session_state.get("filled", 0) + 1, True
    st.session_state["count"] = min(MOST, max(2, len(texts)))
    st.session_state["defaults"] = (prompt, [*texts[:MOST], *[""] * (MOST - len(texts))])
    st.session_state["by"] = by or []
    if prompt.strip() and len([text for text in texts if text.strip()]) > 1:
        st.session_state["query"] = (prompt, list(texts))


def kept_texts() -> dict[int, tuple[str, list[str]]]:
    """User id → what the user last had in the fields.  A page that is left or reloaded loses the values of its widgets;
    these stay until the app stops.
    """
    session, _ = current()
    return session.once("texts of the reward page", None, dict)


def keep(prompt: str, texts: list[str]) -> None:
    _, me = current()
    kept = kept_texts()
    kept.pop(me.id, None)  # so that those kept longest ago come first
    kept[me.id] = (prompt, texts)
    if len(kept) > MOST_KEPT:
        kept.pop(next(iter(kept)), None)


@in_a_sentence
def typed() -> None:
    keys = [field(f"response-{i}") for i in range(st.session_state["count"])]
    keep(st.session_state[field("prompt")], [st.session_state.get(key, "") for key in keys])


@st.cache_data(max_entries=8, show_spinner=False)
def example(_session: Session, study_id: int, snapshot: str) -> tuple[str, list[str]] | None:
    """The pair of the study on which the groups differ most."""
    try:
        view = controversy.ranked(_session, 1)
    except CoplError:
        return None  # ``prediction`` reports the broken snapshot
    if not view or not view.items:
        return None
    pair = view.items[0]
    return pair.prompt, [pair.first.text, pair.second.text]


def linked_texts(session: Session) -> tuple[str, list[str]] | None:
    """The texts of the pair or the question in the address (``?pair=7``, ``?question=3``)."""
    pair, prompt = (st.query_params.get(name, "") for name in ("pair", "question"))
    try:
        if is_id(pair):
            found = contents.pair(session, int(pair))
            return found.prompt, [found.first.text, found.second.text]
        if is_id(prompt):
            return of_study(session, int(prompt))
    except CoplError as problem:
        st.warning(str(problem))
    return None


def unlink() -> None:
    """Remove the pair and the question from the address: the page shows other texts."""
    for name in ("pair", "question"):
        st.query_params.pop(name, None)


def linked_people(session: Session) -> list[str]:
    """Options of the people in the address (``?people=4,8``)."""
    wanted = {int(one) for one in st.query_params.get("people", "").split(",") if is_id(one)}
    return [f"user {id}" for id in access.users_of(session, wanted)]


def of_study(session: Session, prompt_id: int) -> tuple[str, list[str]]:
    prompts = dict(contents.prompts(session))
    if prompt_id not in prompts:
        raise CoplError(f"There is no question {prompt_id} in this study; choose one from the list.")
    return prompts[prompt_id], [response.text for response in contents.prompt_responses(session, prompt_id)[:MOST]]


def query_form() -> tuple:
    """The fields; returns (prompt, responses, users, groups, first, answers) or None, and the area for new answers."""
    left, right = st.columns([8, 4], gap="medium", vertical_alignment="bottom")
    with left:
        question_of_study()
    with right:
        try_button()
    st.text_area(
        "Question",
        st.session_state["defaults"][0],
        key=field("prompt"),
        on_change=typed,
        height=70,
        max_chars=LONGEST_TEXT,
        placeholder="How do I get my cat to take a pill?",
    )
    count = st.session_state["count"]
    fields(count)
    st.session_state["just filled"] = False  # only once the fields are drawn
    area = writer_controls(MOST)
    left, right = st.columns([9, 3], gap="medium", vertical_alignment="bottom")
    with left:
        people, first, groups = people_and_groups()
    if right.button("Predict", type="primary", width="stretch", disabled=writing() is not None):
        unlink()
        st.session_state["answer wanted"] = True
        st.session_state["query"] = (
            st.session_state[field("prompt")],
            [st.session_state[field(f"response-{i}")] for i in range(count)],
        )
    texts = st.session_state.get("query")
    return (None if texts is None or writing() is not None else (*texts, people, groups, first, answers())), area


def fields(count: int) -> None:
    by, (_, texts) = st.session_state["by"], st.session_state["defaults"]
    columns = [column for _ in range(0, count, IN_A_ROW) for column in st.columns(min(count, IN_A_ROW))]
    for i, column in zip(range(count), columns, strict=False):
        author = by[i] if i < len(by) else ""
        column.text_area(
            f"Answer {LETTERS[i]}",
            texts[i],
            key=field(f"response-{i}"),
            on_change=typed,
            height=120,
            max_chars=LONGEST_TEXT,
            help=f"Written by {author}." if author else None,
        )
    with st.container(horizontal=True):
        st.button("Add an answer", disabled=count >= MOST, on_click=resize, args=(count + 1,))
        st.button("Remove an answer", disabled=count <= 2, on_click=resize, args=(count - 1,))


def resize(count: int) -> None:
    st.session_state["count"] = count


def question_of_study() -> None:
    """A list of the study's questions; choosing one fills the fields with it and its answers."""
    session, _ = current()
    prompts = dict(contents.prompts(session))

    def fill_from_study() -> None:
        chosen = st.session_state["picked"]
        if chosen is not None:
            found = of_study(session, chosen)
            fill(*found)
            keep(*found)
            st.query_params["question"] = str(chosen)
            st.query_params.pop("pair", None)

    st.selectbox(
        "Choose a question of the study, with its answers",
        list(prompts),
        index=None,
        key="picked",
        format_func=lambda number: title_of(prompts[number]),
        on_change=fill_from_study,
        placeholder="or type your own below",
    )


def people_and_groups() -> tuple[list[int], list[int], list[int]]:
    """(user ids, ids of users after their first answers only, groups) to predict for."""
    session, _ = current()
    kept = [one for one in st.session_state.get("people", []) if one.startswith("user ")]
    names = options(session, find_people("people-find", chosen=[int(one.split()[1]) for one in kept]))
    st.session_state["people"] = [one for one in st.session_state.get("people", []) if one in names]
    chosen = st.multiselect(
        "People and groups",
        list(names),
        format_func=names.get,
        key="people",
        wrap=True,
        help="Yourself, the groups of the map, and everybody else by name.",
    )
    st.session_state["people before"] = chosen
    users, first, groups = (
        [int(one.split()[1]) for one in names if one in chosen and one.startswith(kind)]
        for kind in ("user ", "first ", "group ")
    )
    st.query_params["people"] = ",".join(map(str, users))
    return users, first, groups


def options(session: Session, found: Sequence[User]) -> dict[str, str]:
    """Option → name: oneself, the groups, and the others by name, simulated people and language models last."""
    _, me = current()
    names = {f"user {me.id}": f"{me.name} (you)"}
    if labelling.progress(session, me.id).done >= FIRST:
        names[f"first {me.id}"] = f"You after your first {FIRST} answers"
    names |= {f"group {group}": group_name(group) for group in groups_of_snapshot(session)}
    others = sorted(found, key=lambda user: (user.kind.mark, user.name.casefold()))
    return names | {f"user {one.id}": person_name(one.name, one.kind) for one in others if one.id != me.id}


def groups_of_snapshot(session: Session) -> list[int]:
    try:
        layout = session.snapshot().layout
    except CoplError:
        return []
    return sorted(set(layout.group[layout.group >= 0].tolist()))


# ---- the prediction


def prediction(query: tuple | None):
    """Draw the prediction for the query; its view, or None where there is nothing to show."""
    session, _ = current()
    if query is None:
        st.info(
            "The answers are being written; the prediction follows as soon as they are ready."
            if writing()
            else "Type a question and two or more answers, and press Predict."
        )
        return None
    prompt, responses, users, groups, first, given = query
    if not (users or groups or first or given):
        st.info("Choose the people or groups whose preferences you want to see predicted.")
        return None
    st.markdown(lead(prompt, len(responses), users, groups))
    try:
        with st.spinner("Reading the answers"):
            view = cached_view(session, query)
    except CoplError as problem:
        st.error(str(problem))
        return None
    verdict(view, prompt, responses)
    return view


def lead(prompt: str, responses: int, users: list[int], groups: list[int]) -> str:
    """The question and the people in one sentence, which needs no model."""
    session, _ = current()
    who = [access.user(session, one).name for one in users[:MOST_NAMED]]
    who += [f"{len(users) - MOST_NAMED:,} more"] * (len(users) > MOST_NAMED)
    who += [f"{len(groups)} group{'s' * (len(groups) > 1)} of the map"] * (len(groups) > 0)
    by = f": predicted preferences of {listing(who)}" if who else ""
    return f"{responses} answers to “{literal(shorten(prompt, 120, placeholder=' …'))}”{by}."


def cached_view(session: Session, query: tuple):
    """The predicted rewards, computed again only when the query, the snapshot or a label has changed."""
    prompt, responses, users, groups, first, given = query
    key = (session.record.champion, session.store.answers_state(session.id), repr(query))
    if st.session_state.get("prediction", (None,))[0] != key:
        view = rewards.reward(session, prompt, responses, users=users, groups=groups, first=first, answers=given)
        st.session_state["prediction"] = (key, view)
    return st.session_state["prediction"][1]


page()
