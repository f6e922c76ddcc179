"""What the server answers, without HTTP: each answer is that of the study's own verbs, as plain JSON values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from copl_core.config import Settings
from copl_core.records import CoplError, NotInStudy
from copl_core.rounding import rounded
from copl_core.serving.bodies import BadRequest, Query, RewardRequest
from copl_core.store import Store
from copl_core.study import access, group_names, rewards, user_map
from copl_core.study.session import Session
from copl_core.study.views import RewardView, ScoreRow
from copl_core.study_settings import SMALLEST_GROUP

FETCH_SECONDS = 20.0  # for which a request waits for a snapshot that is fetched
# Rewards and probabilities that other programs get, to the nearest multiple.  A finer probability would tell a reward
# more finely than its own step: near one half a step of 0.02 is one of 0.08 log-odds.
REWARD_STEP = 0.1  # log-odds
WIN_STEP = 0.02
Answered = TypeVar("Answered")


class Service:
    """The studies of an installation, opened at first use.  Safe to share between threads.

    Args:
        embed: texts → φ; by default the bundled sentence model.
    """

    def __init__(self, store: Store, settings: Settings, embed: Callable[..., np.ndarray] | None = None) -> None:
        self.store, self.settings, self._embed = store, settings, embed
        self._sessions: dict[int, Session] = {}
        self._lock = Lock()

    def session(self, study_id: int) -> Session:
        with self._lock:
            if study_id not in self._sessions:
                self._sessions[study_id] = Session(
                    self.store, self.settings, study_id, embed=self._embed, patience=FETCH_SECONDS
                )
            return self._sessions[study_id]

    def rewards(
        self, study_id: int, request: RewardRequest, *, only_large: bool = False, exact: bool = True
    ) -> dict[str, Any]:
        """Rewards and win probabilities, with intervals, of one request.

        Args:
            only_large: groups of fewer people than ``SMALLEST_GROUP`` are left out, or refused where one is named.
            exact: else in multiples of ``REWARD_STEP`` and ``WIN_STEP``.

        Raises:
            BadRequest: an unknown user or group, labels about other texts than the study's, or no snapshot yet.
        """
        return _answer(self.view(study_id, request, only_large=only_large), exact)

    def view(self, study_id: int, request: RewardRequest, *, only_large: bool = False) -> RewardView:
        """The same as the reward page gets it."""
        session = self.session(study_id)
        whose: dict[str, Any] = {"groups": request.user is None and request.group is None and not request.labels}
        if only_large and whose["groups"]:
            whose["groups"] = self._by_champion(session, lambda: group_names.large(session))
        if request.user is not None:
            whose["users"] = [self.user_id(session, request.user)]
        if request.group is not None:
            whose["groups"] = [self.group_number(session, request.group, only_large=only_large)]
        if request.labels:
            whose["answers"] = _answers(session, request)
        return self._by_champion(session, lambda: rewards.reward(session, request.prompt, request.responses, **whose))

    def pointwise(
        self,
        study_id: int,
        queries: Sequence[Query],
        user: str | None,
        group: str | None,
        *,
        only_large: bool = False,
        exact: bool = True,
    ) -> tuple[list[float], str]:
        """(a reward for each text, the snapshot); ``only_large`` and ``exact`` as in ``rewards``."""
        session = self.session(study_id)
        texts = [(query.prompt, query.response) for query in queries]
        user_id = None if user is None else self.user_id(session, user)
        number = None if group is None else self.group_number(session, group, only_large=only_large)
        found, snapshot = self._by_champion(
            session, lambda: rewards.pointwise(session, texts, user=user_id, group=number)
        )
        return _numbers(found, REWARD_STEP, exact), snapshot

    def embedding(self, study_id: int, user: str) -> dict[str, Any]:
        """A user's embedding and group by their present labels."""
        session = self.session(study_id)
        user_id = self.user_id(session, int(user) if user.isascii() and user.isdigit() else user)
        position = self._by_champion(session, lambda: user_map.position(session, user_id))
        if position is None:
            raise _no_snapshot()
        names = group_names.names(session, position.snapshot)
        return {
            "user": user_id,
            "name": self.store.user(user_id).name,
            "embedding": [float(value) for value in position.vector],
            "source": position.source,
            "labels": position.n_labels,
            "group": None if position.group is None else names.get(position.group),
            "group_probability": position.group_probability,
            "map": None if position.xy is None else list(position.xy),
            "snapshot": position.snapshot,
        }

    def user_id(self, session: Session, wanted: str | int) -> int:
        """The id of a user by name or id.

        Raises:
            BadRequest: 404, there is no such user in this study.
        """
        return _found(lambda: access.find_user(session, wanted).id)

    def group_number(self, session: Session, wanted: str | int, *, only_large: bool = False) -> int:
        """The number of a group, by its name or by its number on the pages, which begins with 1.

        Raises:
            BadRequest: 404, there is no such group in the champion; 403, it is too small for this token.
        """
        number = _found(lambda: self._by_champion(session, lambda: group_names.number_of(session, wanted)))
        if only_large and number not in self._by_champion(session, lambda: group_names.large(session)):
            raise BadRequest(
                403,
                f"The group {str(wanted)[:60]!r} has fewer than {SMALLEST_GROUP} people, whose rewards this token may "
                "not ask for; ask for a larger group.",
            )
        return number

    def _by_champion(self, session: Session, answer: Callable[[], Answered]) -> Answered:
        """What ``answer`` computes by the champion.  One that was replaced and removed meanwhile is tried once more.

        Raises:
            BadRequest: 409, there is no snapshot yet.
        """
        champion = session.record.champion
        if champion is None:
            raise _no_snapshot()
        try:
            return answer()
        except CoplError:
            if session.record.champion == champion:
                raise
            return answer()


def _no_snapshot() -> BadRequest:
    return BadRequest(
        409, "The study has no snapshot yet, so there are no rewards; let its trainer finish a first run."
    )


def _found(find: Callable[[], int]) -> int:
    try:
        return find()
    except NotInStudy as problem:
        raise BadRequest(404, str(problem)) from None


def _answers(session: Session, request: RewardRequest) -> list[tuple[int, int]]:
    try:
        given = [(one.prompt, one.preferred, one.rejected) for one in request.labels]
        return rewards.answers_by_text(session, given)
    except CoplError as problem:
        raise BadRequest(422, str(problem)) from None


def _answer(view: RewardView, exact: bool) -> dict[str, Any]:
    return {
        "snapshot": view.snapshot,
        "basis": view.basis,
        "labelled": view.known,
        "rows": [_row(row, exact) for row in view.rows],
    }


def _row(row: ScoreRow, exact: bool) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "people": row.size,
        "placed_by": row.source,
        "rewards": _numbers(row.reward, REWARD_STEP, exact),
        "win": _numbers(row.win, WIN_STEP, exact),
        "win_low": _numbers(row.low, WIN_STEP, exact),
        "win_high": _numbers(row.high, WIN_STEP, exact),
        "interval": "5 % to 95 % of the group's people" if row.kind == "group" else "95 % of the posterior",
    }


def _numbers(values: np.ndarray, step: float, exact: bool) -> list[float]:
    found: list[float] = (values if exact else rounded(values, step)).tolist()
    return found
