"""How would these people judge these answers?  Live, for texts never seen before."""

from __future__ import annotations

from textwrap import shorten

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import access, contents, controversy, labelling, rewards
from copl_core.study.session import Session
from pages.candidates import blank, field, finish, offer, write, writing
from pages.common import here, newer_snapshot, no_snapshot, person_name, readable
from pages.five_answers import ANSWERS, answers, five_pairs
from pages.reward_results import LETTERS, choosing, experts, moved, table, verdict

MOST = 6
MOST_NAMED = 4  # people in the first sentence
FIRST = 5  # answers of one's own after which one may look at oneself


def page() -> None:
    session, _ = here()
    st.title("Reward")
    if session.record.champion is None:
        no_snapshot("A reward")
    restore()
    answer, ask = st.columns([7, 5], gap="large")
    with ask:
        asked, place = question()
    with answer:
        view = judgement(asked)
    if ANSWERS in st.session_state["people"]:
        five_pairs()
    if view is not None:
        choosing(view)
        moved(view, asked)
        experts(view)
        table(view)
    if writing() is None:
        newer_snapshot(session.record.champion)
        return
    with answer:
        blank(30)
    blank(50)
    with place:
        write()  # last, since it takes its time


# ---- what is asked


def restore() -> None:
    """What the page shows when it opens: what was written meanwhile, asked last, linked to, or else an example.

    Widgets forget what stood in them when another page is opened; ``asked`` does not.
    """
    session, me = here()
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
                or st.session_state.get("asked")
                or example(session, session.id, session.record.champion)
                or ("", [])
            )
        )


def fill(prompt: str, texts: list[str], by: list[str] | None = None) -> None:
    """Put texts into new fields and judge them.

    New, because a browser that is busy with an earlier run may never draw what a later one does not repeat: the text
    that a field is born with is told in every run, one that is put into it later is told in one.
    """
    st.session_state["filled"], st.session_state["just filled"] = st.session_state.get("filled", 0) + 1, True
    st.session_state["count"] = min(MOST, max(2, len(texts)))
    st.session_state["born with"] = (prompt, [*texts[:MOST], *[""] * (MOST - len(texts))])
    st.session_state["by"] = by or []
    if prompt.strip() and len([text for text in texts if text.strip()]) > 1:
        st.session_state["asked"] = (prompt, list(texts))


@st.cache_data(max_entries=8, show_spinner=False)
def example(_study: Session, study_id: int, snapshot: str) -> tuple[str, list[str]] | None:
    """The pair of the study that divides the groups most."""
    try:
        divided = controversy.ranked(_study, 1)
    except CoplError:
        return None  # the judgement says what is wrong with the snapshot
    if not divided or not divided.pairs:
        return None
    pair = divided.pairs[0]
    return pair.prompt, [pair.first.text, pair.second.text]


def linked_texts(session: Session) -> tuple[str, list[str]] | None:
    """The pair or the question that the address names (``?pair=7``, ``?question=3``)."""
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
    """The address no longer names what the page shows."""
    for name in ("pair", "question"):
        st.query_params.pop(name, None)


def linked_people(session: Session) -> list[str]:
    """The people that the address names (``?people=4,8``)."""
    wanted = {int(one) for one in st.query_params.get("people", "").split(",") if one.isdigit()}
    return [f"user {user.id}" for user in access.users(session) if user.id in wanted]


def of_study(session: Session, prompt_id: int) -> tuple[str, list[str]]:
    prompts = dict(contents.prompts(session))
    if prompt_id not in prompts:
        raise CoplError(f"There is no question {prompt_id} in this study; pick one from the list.")
    return prompts[prompt_id], [response.text for response in contents.prompt_responses(session, prompt_id)[:MOST]]


def question() -> tuple:
    """The fields; returns what is to be judged (prompt, responses, groups, and who), and the place of the answers."""
    pick()
    st.text_area(
        "Question",
        st.session_state["born with"][0],
        key=field("prompt"),
        height=70,
        placeholder="How do I get my cat to take a pill?",
    )
    place = st.container()
    count = st.session_state["count"]
    if writing() is None:
        with place:
            fields(count)
    st.session_state["just filled"] = False  # not before there are fields
    offer(MOST)
    people, first, groups = who()
    if st.button("Judge", type="primary", width="stretch", disabled=writing() is not None):
        unlink()
        st.session_state["asked"] = (
            st.session_state[field("prompt")],
            [st.session_state[field(f"response-{i}")] for i in range(count)],
        )
    asked = st.session_state.get("asked")
    given = answers() if ANSWERS in st.session_state["people"] else []
    return (None if asked is None or writing() is not None else (*asked, people, groups, first, given)), place


def fields(count: int) -> None:
    by, (_, texts) = st.session_state["by"], st.session_state["born with"]
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
        st.button("One answer more", disabled=count >= MOST, on_click=resize, args=(count + 1,))
        st.button("One answer less", disabled=count <= 2, on_click=resize, args=(count - 1,))


def resize(count: int) -> None:
    st.session_state["count"] = count


def pick() -> None:
    session, _ = here()
    prompts = dict(contents.prompts(session))

    def take() -> None:
        chosen = st.session_state["picked"]
        if chosen is not None:
            fill(*of_study(session, chosen))
            st.query_params["question"] = str(chosen)
            st.query_params.pop("pair", None)

    st.selectbox(
        "Pick a question of the study, with its answers",
        list(prompts),
        index=None,
        key="picked",
        format_func=prompts.get,
        on_change=take,
        placeholder="or type your own below",
    )


def who() -> tuple[list[int], list[int], bool | list[int]]:
    """(users, users after their first answers, groups) that are asked."""
    session, me = here()
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
        help="Yourself, anybody, or somebody of whom five answers are all that is known.",
    )
    st.session_state["people before"] = chosen
    users = [int(one.split()[1]) for one in chosen if one.startswith("user ")]
    st.query_params["people"] = ",".join(map(str, users))
    numbers = groups_there(session)
    st.session_state["groups"] = [one for one in st.session_state.get("groups", numbers) if one in numbers]
    wanted = (
        st.pills(
            "Groups of the map", numbers, selection_mode="multi", key="groups", format_func=lambda group: str(group + 1)
        )
        if numbers
        else []
    )
    return users, [int(one.split()[1]) for one in chosen if one.startswith("first ")], list(wanted)


def groups_there(session: Session) -> list[int]:
    try:
        layout = session.snapshot().layout
    except CoplError:
        return []
    return sorted(set(layout.group[layout.group >= 0].tolist()))


# ---- the answer


def judgement(asked: tuple | None):
    """The view of what is asked, told and drawn; None where there is nothing to show."""
    session, _ = here()
    if asked is None:
        st.info(
            "The answers are being written, and are judged as soon as they are there."
            if writing()
            else "Type a question and two answers or more, and press Judge."
        )
        return None
    prompt, responses, users, groups, first, given = asked
    if not (users or groups or first or given):
        st.info("Choose people or groups whose judgement you want to see.")
        return None
    st.markdown(lead(prompt, len(responses), users, groups))
    try:
        with st.spinner("Reading the answers"):
            view = remembered(session, asked)
    except CoplError as problem:
        st.error(str(problem))
        return None
    verdict(view, prompt, responses)
    return view


def lead(prompt: str, responses: int, users: list[int], groups: list[int]) -> str:
    """What is judged and by whom, known before any of it is read."""
    session, _ = here()
    who = [access.user(session, one).name for one in users[:MOST_NAMED]]
    who += [f"{len(users) - MOST_NAMED:,} more"] * (len(users) > MOST_NAMED)
    who += [f"{len(groups)} group{'s' * (len(groups) > 1)} of the map"] * (len(groups) > 0)
    by = f", judged by {listing(who)}" if who else ""
    return f"{responses} answers to “{readable(shorten(prompt, 120, placeholder=' …'))}”{by}."


def listing(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def remembered(session: Session, asked: tuple):
    """The judgement, reckoned anew only when the question, the snapshot or a label has changed."""
    prompt, responses, users, groups, first, given = asked
    record = session.record
    key = (record.champion, record.revision, repr(asked))
    if st.session_state.get("judged", (None,))[0] != key:
        view = rewards.reward(session, prompt, responses, users=users, groups=groups, first=first, answers=given)
        st.session_state["judged"] = (key, view)
    return st.session_state["judged"][1]


page()
