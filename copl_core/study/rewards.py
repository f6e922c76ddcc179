"""The verbs of the Reward page: rewards of texts, their attribution to sentences, the next query, and the writer.

Nothing here is stored.  torch is imported when a text is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from copl_core.ids import rows_of
from copl_core.install import models
from copl_core.preference.acquire import informative
from copl_core.records import LONGEST_TEXT, Choice, CoplError, Kind, Label, Pair, Role, User
from copl_core.reward import sentences
from copl_core.reward.styles import STYLES
from copl_core.study import group_names, placement
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study.views import RewardView

if TYPE_CHECKING:
    from copl_core.preference.state import GraphState
    from copl_core.reward.writer import Writer
    from copl_core.snapshots.snapshot import Snapshot

FIRST = 5  # answers that define a user "after five answers"
HYPOTHETICAL_USER = -1  # id of a user who exists only as answers that are not stored
_CANDIDATES = 600  # pairs compared for the next query
Answer = tuple[int, int]  # (preferred response id, rejected response id)
styles = STYLES
whole_sentences = sentences.whole_sentences


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence and what it adds to its response."""

    text: str
    effect: float  # log-odds


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each piece of each response adds to it, for one user or group."""

    name: str
    responses: tuple[tuple[Piece, ...], ...]
    basis: str  # which parts of the model the effects come from, in words
    snapshot: str

    @property
    def most(self) -> float:
        """The largest absolute effect, for the scale of the colours."""
        return max((abs(piece.effect) for own in self.responses for piece in own), default=0.0)


@needs(RESEARCHER)
def reward(
    session: Session,
    prompt: str,
    responses: Sequence[str],
    *,
    users: Sequence[int] = (),
    groups: bool | Sequence[int] = True,
    first: Sequence[int] = (),
    answers: Sequence[Answer] = (),
) -> RewardView:
    """The rewards of responses for users and groups.

    Args:
        users: placed by all their present labels.
        groups: True for all groups of the map, False for none, or the numbers of some.
        first: users placed by their first five labels only.
        answers: all that is known of one more, hypothetical user.

    Raises:
        CoplError: fewer than two responses, an empty or too long text, equal responses, or no snapshot yet.
    """
    prompt, texts, snapshot = _checked_request(session, prompt, responses)
    placed = _users(session, snapshot.graph, users, first, answers)
    known = _known_rows(session, prompt, texts, snapshot)
    named = group_names.names(session, snapshot.version)
    return session.scorer().score(snapshot, [(prompt, text) for text in texts], placed, groups, known, named)


@needs(RESEARCHER)
def pointwise(
    session: Session, texts: Sequence[tuple[str, str]], *, user: int | None = None, group: int | None = None
) -> tuple[np.ndarray, str]:
    """(rewards (T,) in log-odds of single new texts (prompt, response), the snapshot); see ``Scorer.pointwise``.

    Args:
        user, group: whose, exactly one of them; of a group the mean over its people.

    Raises:
        CoplError: an empty or too long text, or no snapshot yet.
    """
    for prompt, response in texts:
        _check_length("The prompt", prompt)
        _check_length("The response", response)
    if not all(prompt.strip() and response.strip() for prompt, response in texts):
        raise CoplError("A prompt or a response is empty; give both with text.")
    snapshot = _needed_snapshot(session)
    placed = _users(session, snapshot.graph, [] if user is None else [user], [], [])
    groups = [] if group is None else [group]
    stripped = [(prompt.strip(), response.strip()) for prompt, response in texts]
    return session.scorer().pointwise(snapshot, stripped, placed, groups), snapshot.version


@needs(RESEARCHER)
def attribution(
    session: Session,
    prompt: str,
    responses: Sequence[str],
    *,
    users: Sequence[int] = (),
    groups: bool | Sequence[int] = (),
    first: Sequence[int] = (),
    answers: Sequence[Answer] = (),
) -> tuple[Attribution, ...]:
    """What each sentence adds to its response, by leaving out one at a time; arguments as in ``reward``."""
    prompt, texts, snapshot = _checked_request(session, prompt, responses)
    placed = _users(session, snapshot.graph, users, first, answers)
    known = _known_rows(session, prompt, texts, snapshot) is not None
    named = group_names.names(session, snapshot.version)
    rows, basis = session.scorer().occlude(snapshot, prompt, texts, placed, groups, known, named)
    return tuple(
        Attribution(
            name,
            tuple(tuple(Piece(text, float(effect)) for text, effect in zip(*own, strict=True)) for own in effects),
            basis,
            snapshot.version,
        )
        for name, effects in rows
    )


@needs(RESEARCHER)
def next_query(session: Session, answers: Sequence[Answer] = ()) -> Pair | None:
    """The most informative pair about a user of whom only these answers are known; None when no pair is left.

    It belongs to a prompt that none of the answers is about.
    """
    snapshot = session.snapshot()
    if snapshot is None:
        return None
    state = snapshot.graph
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    if len(pairs) > _CANDIDATES:
        pairs = pairs[np.sort(np.random.default_rng(0).choice(len(pairs), _CANDIDATES, replace=False))]
    texts = session.store.responses(np.unique(np.concatenate([pairs[:, 1:].ravel(), _ids(answers)])).tolist())
    used = {texts[int(one)].prompt_id for one in _ids(answers) if int(one) in texts}
    rows = rows_of(pairs[:, 1:], state.response_ids)
    fresh = np.array([texts[first].prompt_id not in used for first in pairs[:, 1].tolist()], bool)
    usable = np.flatnonzero((rows >= 0).all(1) & fresh)
    if not len(usable):
        return None
    gain = informative(state, placement.adapted(state, _labels(answers, state), snapshot.prior), rows[usable])
    return session.store.pair(int(pairs[usable[int(gain.argmax())], 0]))


@needs(RESEARCHER)
def answers_by_text(session: Session, labels: Sequence[tuple[str, str, str]]) -> list[Answer]:
    """The answers that (prompt, preferred response, rejected response) name by their texts.

    Raises:
        CoplError: a text is no response of this study to that prompt, or the two are the same.
    """
    ids = {text.strip(): number for number, text in session.store.prompts(session.id)}
    found = []
    for number, (prompt, *texts) in enumerate(labels, 1):
        known: dict[str, int] = {}
        if prompt.strip() in ids:
            known = {one.text.strip(): one.id for one in session.store.prompt_responses(ids[prompt.strip()])}
        preferred, rejected = (known.get(text.strip()) for text in texts)
        if preferred is None or rejected is None or preferred == rejected:
            raise CoplError(
                f"Label {number} does not name two responses of this study to one of its prompts; a label places a "
                "user by responses that others have labelled: take texts of the study."
            )
        found.append((preferred, rejected))
    return found


@needs(RESEARCHER)
def writer(session: Session, name: str = "smollm2", *, by: int | None = None) -> Writer:
    """A language model that writes candidates.  Each call loads it, so keep the result.

    Args:
        name: a bundled one, a Hugging Face id, or a folder; for users of the study only one below
            ``Settings.model_root``, from which a relative name is read.  The terminal may name any.

    Raises:
        CoplError: the model is not on this machine, is not below that folder, or cannot write texts.
    """
    name = name.strip()
    return models.load(session.settings, name, name if by is None else models.allowed(session.settings, name))


# ---- helpers


def _checked_request(session: Session, prompt: str, responses: Sequence[str]) -> tuple[str, list[str], Snapshot]:
    prompt, texts = prompt.strip(), _checked(prompt, responses)
    return prompt, texts, _needed_snapshot(session)


def _needed_snapshot(session: Session) -> Snapshot:
    snapshot = session.snapshot()
    if snapshot is None:
        raise CoplError(
            "There is no snapshot yet, so there are no rewards; label some pairs and let the trainer finish "
            "its first run (see the Training page)."
        )
    return snapshot


def _checked(prompt: str, responses: Sequence[str]) -> list[str]:
    _check_length("The prompt", prompt)  # before any other work on it
    for number, text in enumerate(responses, 1):
        _check_length(f"Response {number}", text)
    texts = [text.strip() for text in responses]
    if not prompt.strip():
        raise CoplError("The prompt is empty; type a question.")
    if len(texts) < 2 or not all(texts):
        raise CoplError(f"Responses with text: {sum(map(bool, texts))}; two or more are needed; fill them in.")
    if len(set(texts)) < len(texts):
        raise CoplError("Two of the responses are the same text; change or remove one.")
    return texts


def _check_length(name: str, text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise CoplError(f"{name} has {len(text):,} characters, and {LONGEST_TEXT:,} is the most; shorten it.")


def _users(
    session: Session, state: GraphState, users: Sequence[int], first: Sequence[int], answers: Sequence[Answer]
) -> list[tuple[User, list[Label]]]:
    """All requested users, with the labels that place them."""
    store = session.store
    placed = [(store.user(one), store.labels(session.id, user_id=one)) for one in users]
    for one in first:
        user, labels = store.user(one), store.labels(session.id, user_id=one)[:FIRST]
        name = f"{user.name} after {len(labels)} answers"
        placed.append((User(user.id, name, user.kind, user.role), labels))  # their id keeps their own trained row out
    if answers:
        name = f"You by these {len(answers)} answers" if len(answers) > 1 else "You by this one answer"
        placed.append((User(HYPOTHETICAL_USER, name, Kind.HUMAN, Role.ANNOTATOR), _labels(answers, state)))
    return placed


def _labels(answers: Sequence[Answer], state: GraphState) -> list[Label]:
    """Answers as labels that are not stored, with the mean strength of the study's labels.

    The preferred response comes first, so the order says nothing about a position.
    """
    now, usual = datetime.now(UTC), float(state.labels.strength.mean())
    return [
        Label(
            -1 - n,
            None,
            HYPOTHETICAL_USER,
            -1,
            -1,
            preferred,
            rejected,
            Choice.LEFT,
            usual,
            "",
            None,
            now,
            position_known=False,
        )
        for n, (preferred, rejected) in enumerate(answers)
    ]


def _ids(answers: Sequence[Answer]) -> np.ndarray:
    return np.array(answers, np.int64).reshape(-1)


def _known_rows(session: Session, prompt: str, texts: Sequence[str], snapshot: Snapshot) -> np.ndarray | None:
    """Rows (T,) in the graph when every text is a response of this study to this prompt that has labels in the graph.

    Texts never change, so one table of the snapshot's labelled texts answers for all requests: 16 bytes per text.
    """
    name = f"labelled texts of {snapshot.version}"
    marks, rows = session.once(name, session.id, lambda: _labelled_texts(session, snapshot.graph))
    wanted = np.array([_mark(prompt, text) for text in texts], np.int64)
    found = rows_of(wanted, marks, ordered=True)
    return rows[found] if (found >= 0).all() else None


def _labelled_texts(session: Session, state: GraphState) -> tuple[np.ndarray, np.ndarray]:
    """(marks of the labelled texts (R,) in ascending order, their rows in the graph)."""
    prompts = dict(session.store.prompts(session.id))
    n = len(state.response_ids)  # counted: sorting millions of sides takes seconds
    rows = np.flatnonzero(np.bincount(state.labels.left, minlength=n) + np.bincount(state.labels.right, minlength=n))
    texts = session.store.responses(state.response_ids[rows].tolist())
    marks = np.array([_mark(prompts[one.prompt_id].strip(), one.text.strip()) for one in texts.values()], np.int64)
    order = np.argsort(marks, kind="stable")
    return marks[order], rows_of(np.array(list(texts), np.int64), state.response_ids)[order]


def _mark(prompt: str, text: str) -> int:
    """64 bits of a text, by Python's keyed hash: nobody can make two texts with one mark."""
    return hash((prompt, text))
