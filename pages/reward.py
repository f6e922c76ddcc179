"""Predict which answer people and groups would prefer, also for texts that the study has never seen."""

from __future__ import annotations

from textwrap import shorten

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import access, contents, controversy, labelling, rewards
from copl_core.study.session import Session
from pages.candidates import blank, field, finish, write, writer_controls, writing
from pages.common import current, no_snapshot, person_name, watch_champion
from pages.five_answers import ANSWERS, answers, five_pairs
from pages.reward_results import LETTERS, attribution, choosing, experts, table, verdict
from pages.texts import literal

MOST = 6  # answers
MOST_NAMED = 4  # people in the first sentence
FIRST = 5  # own answers; from then on one can compare oneself after these with oneself after all


def page() -> None:
    session, _ = current()
    st.title("Reward")
    if session.record.champion is None:
        no_snapshot("A reward")
    restore()
    results, controls = st.columns([7, 5], gap="large")
    with controls:
        query, area = query_form()
    with results:
        view = prediction(query)
    if ANSWERS in st.session_state["people"]:
        five_pairs()
    if view is not None:
        choosing(view)
        attribution(view, query)
        experts(view)
        table(view)
    if writing() is None:
        watch_champion(session.record.champion)
        return
    with results:
        blank(30)
    blank(50)
    with area:
        write()  # last, since it takes a while


# ---- the query: a question, answers, people and groups


def restore() -> None:
    """Fill the fields when the page opens: with written answers, the linked texts, the last query, or an example.

    Widgets lose their values when another page is opened; ``st.session_state["query"]`` keeps the last query.
    """
    session, me = current()
    if "people" not in st.session_state:
        st.session_state["people"] = (
            linked_people(session) or st.session_state.get("people before") or [f"user {me.id}"]
        )
    drafts = finish()
    if drafts:
        fill(drafts.prompt, drafts.texts, drafts.by)
        unlink()
    elif not st.session_state.get("just filled") and field("prompt") not in st.session_state:
        fill(
            *(
                linked_texts(session)
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
        if pair.isdigit():
            found = contents.pair(session, int(pair))
            return found.prompt, [found.first.text, found.second.text]
        if prompt.isdigit():
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
    wanted = {int(one) for one in st.query_params.get("people", "").split(",") if one.isdigit()}
    return [f"user {user.id}" for user in access.users(session) if user.id in wanted]


def of_study(session: Session, prompt_id: int) -> tuple[str, list[str]]:
    prompts = dict(contents.prompts(session))
    if prompt_id not in prompts:
        raise CoplError(f"There is no question {prompt_id} in this study; choose one from the list.")
    return prompts[prompt_id], [response.text for response in contents.prompt_responses(session, prompt_id)[:MOST]]


def query_form() -> tuple:
    """The fields; returns (prompt, responses, users, groups, first, answers) or None, and the area of the answers."""
    question_of_study()
    st.text_area(
        "Question",
        st.session_state["defaults"][0],
        key=field("prompt"),
        height=70,
        placeholder="How do I get my cat to take a pill?",
    )
    area = st.container()
    count = st.session_state["count"]
    if writing() is None:
        with area:
            fields(count)
    st.session_state["just filled"] = False  # only once the fields are drawn
    writer_controls(MOST)
    people, first, groups = people_and_groups()
    if st.button("Predict", type="primary", width="stretch", disabled=writing() is not None):
        unlink()
        st.session_state["query"] = (
            st.session_state[field("prompt")],
            [st.session_state[field(f"response-{i}")] for i in range(count)],
        )
    texts = st.session_state.get("query")
    given = answers() if ANSWERS in st.session_state["people"] else []
    return (None if texts is None or writing() is not None else (*texts, people, groups, first, given)), area


def fields(count: int) -> None:
    by, (_, texts) = st.session_state["by"], st.session_state["defaults"]
    for i in range(count):
        author = by[i] if i < len(by) else ""
        st.text_area(
            f"Answer {LETTERS[i]}",
            texts[i],
            key=field(f"response-{i}"),
            height=120,
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
            fill(*of_study(session, chosen))
            st.query_params["question"] = str(chosen)
            st.query_params.pop("pair", None)

    st.selectbox(
        "Choose a question of the study, with its answers",
        list(prompts),
        index=None,
        key="picked",
        format_func=prompts.get,
        on_change=fill_from_study,
        placeholder="or type your own below",
    )


def people_and_groups() -> tuple[list[int], list[int], bool | list[int]]:
    """(user ids, ids of users after their first answers only, groups) to predict for."""
    session, me = current()
    names = {f"user {user.id}": person_name(user.name, user.kind) for user in access.users(session)}
    if labelling.progress(session, me.id).done >= FIRST:
        names[f"first {me.id}"] = f"You after your first {FIRST} answers"
    names[ANSWERS] = "Somebody with five answers given here"
    kept = [one for one in st.session_state.get("people", []) if one in names]
    st.session_state["people"] = kept
    chosen = st.multiselect(
        "People",
        list(names),
        format_func=names.get,
        key="people",
        help="Yourself, other people, or somebody about whom only five answers are known.",
    )
    st.session_state["people before"] = chosen
    users = [int(one.split()[1]) for one in chosen if one.startswith("user ")]
    st.query_params["people"] = ",".join(map(str, users))
    numbers = groups_of_snapshot(session)
    st.session_state["groups"] = [one for one in st.session_state.get("groups", numbers) if one in numbers]
    wanted = (
        st.pills(
            "Groups of the map", numbers, selection_mode="multi", key="groups", format_func=lambda group: str(group + 1)
        )
        if numbers
        else []
    )
    return users, [int(one.split()[1]) for one in chosen if one.startswith("first ")], list(wanted)


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
        st.info("Choose the people or groups whose preference you want to see predicted.")
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


def listing(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def cached_view(session: Session, query: tuple):
    """The predicted rewards, computed again only when the query, the snapshot or a label has changed."""
    prompt, responses, users, groups, first, given = query
    record = session.record
    key = (record.champion, record.revision, repr(query))
    if st.session_state.get("prediction", (None,))[0] != key:
        view = rewards.reward(session, prompt, responses, users=users, groups=groups, first=first, answers=given)
        st.session_state["prediction"] = (key, view)
    return st.session_state["prediction"][1]


page()
