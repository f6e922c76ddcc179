"""What a study needs from its database, as a Protocol: ``db.store.SqlStore`` keeps it, tests may bring their own.

Every method is one transaction: it is wholly done when it returns, and nothing of it is there when it raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from copl_core.records import (
    AuditEntry,
    Choice,
    ImportReport,
    ImportRow,
    Kind,
    Label,
    Pair,
    Progress,
    Response,
    Role,
    Run,
    RunState,
    SnapshotRecord,
    StudyRecord,
    Task,
    TrainingData,
    User,
)
from copl_core.study_settings import (
    AnswerTable,
    AssignmentSettings,
    AvailablePairs,
    Draft,
    EmailRule,
    GoldPair,
    Guidelines,
    Invite,
    PinnedPair,
    Prediction,
    PredictionRecord,
    Report,
    Schedule,
)


class Store(Protocol):
    # ---- studies
    def studies(self) -> list[StudyRecord]: ...
    def study(self, study_id: int) -> StudyRecord: ...
    def create_study(self, name: str, *, demo: bool = False) -> StudyRecord:
        """The study of that name, made if there is none; a newly made study becomes the current one."""
        ...

    def current_study(self) -> StudyRecord | None:
        """The study that pages open: the one last made current."""
        ...

    def make_current(self, study_id: int) -> None: ...
    def include_simulated(self, study_id: int, include: bool, *, by: int | None = None) -> None:
        """The switch for simulated users; off, they are in no listing and no training data (and not deleted)."""
        ...

    # ---- users
    def users(self, study_id: int) -> list[User]: ...
    def user(self, user_id: int) -> User: ...
    def create_user(
        self,
        study_id: int,
        name: str,
        *,
        kind: Kind = Kind.HUMAN,
        role: Role = Role.ANNOTATOR,
        true_group: str | None = None,
    ) -> User:
        """A user with that name, unique in the study: an existing one is returned as it is."""
        ...

    def set_role(self, user_id: int, role: Role, *, by: int | None = None) -> User:
        """Refused for the last owner of a study."""
        ...

    def exclude(self, user_id: int, excluded: bool, *, by: int | None = None) -> User:
        """Keep a user's labels out of training and votes, or let them in again; their own lists stay."""
        ...

    def audit(self, study_id: int, *, limit: int = 100) -> list[AuditEntry]:
        """Who changed what, newest first."""
        ...

    # ---- sign-in (hashes only)
    def add_token(self, user_id: int, token_hash: str) -> None: ...
    def user_by_token(self, study_id: int, token_hash: str) -> User | None: ...
    def drop_tokens(self, user_id: int, *, by: int | None = None) -> int:
        """Sign a user out everywhere; how many tokens that were."""
        ...

    def join(self, study_id: int, name: str, token_hash: str) -> User:
        """A new annotator with a token; refused where the study is not open or the name is in use."""
        ...

    def add_invite(
        self,
        study_id: int,
        token_hash: str,
        role: Role,
        *,
        uses: int | None,
        expires_at: datetime | None,
        by: int | None = None,
    ) -> Invite: ...
    def invites(self, study_id: int) -> list[Invite]:
        """Newest first."""
        ...

    def invite_by_token(self, study_id: int, token_hash: str) -> Invite | None: ...
    def revoke_invite(self, study_id: int, invite_id: int, *, by: int | None = None) -> Invite: ...
    def accept_invite(self, study_id: int, token_hash: str, name: str, user_token_hash: str) -> User:
        """A new user with a token and the invite's role; refused unless the invite is open and the name is free."""
        ...

    def set_email(self, study_id: int, email: str, role: Role | None, *, by: int | None = None) -> EmailRule:
        """Which role an address has, none to refuse it; a user who signed in with it before changes role."""
        ...

    def emails(self, study_id: int) -> list[EmailRule]: ...
    def user_by_email(self, study_id: int, email: str, name: str = "") -> User | None:
        """The user of an address, made at the first sign-in; none: refused, or unknown to a study that is not open."""
        ...

    # ---- what the study has settled
    def assignment_settings(self, study_id: int) -> AssignmentSettings: ...
    def set_assignment(self, study_id: int, settings: AssignmentSettings, *, by: int | None = None) -> None: ...
    def guidelines(self, study_id: int) -> list[Guidelines]:
        """Every version, newest first."""
        ...

    def write_guidelines(self, study_id: int, text: str, *, by: int | None = None) -> int:
        """The new version; the newest one where the text is the same."""
        ...

    def set_gold(self, study_id: int, pair_id: int, preferred_id: int | None, *, by: int | None = None) -> None:
        """Give a pair a known answer, or take it away; a gold pair is asked for attention only."""
        ...

    def gold(self, study_id: int) -> list[GoldPair]: ...
    def gold_of(self, pair_id: int) -> int | None: ...
    def report(self, user_id: int, response_id: int, text: str) -> Report: ...
    def reports(self, study_id: int, *, resolved: bool = False) -> list[Report]:
        """Newest first; with ``resolved``, those that are settled too."""
        ...

    def resolve(self, study_id: int, report_id: int, *, by: int | None = None) -> Report: ...

    # ---- texts
    def import_rows(self, study_id: int, rows: Iterable[ImportRow], *, by: int | None = None) -> ImportReport:
        """Add prompts, responses, pairs, users and labels that are not there yet; idempotent by ``ImportRow.key``."""
        ...

    def pair(self, pair_id: int) -> Pair: ...
    def pairs(self, study_id: int) -> list[tuple[int, int, int]]:
        """(pair id, first response id, second response id) of every pair, by id."""
        ...

    def responses(self, response_ids: Sequence[int]) -> dict[int, Response]: ...
    def prompts(self, study_id: int) -> list[tuple[int, str]]: ...
    def prompt_responses(self, prompt_id: int) -> list[Response]: ...

    def pairs_by_prompt(self, study_id: int) -> list[tuple[int, int, int, int]]:
        """(pair id, first response id, second response id, prompt id) of every pair, a prompt's pairs together."""
        ...

    def sources(self, study_id: int) -> list[tuple[int, str]]:
        """(response id, where it comes from) of every response whose file said so."""
        ...

    def vote_counts(self, study_id: int) -> dict[int, int]:
        """Pair → people whose counting preference is on it, excluded ones left out; none without any."""
        ...

    def votes_of(self, study_id: int, pair_ids: Sequence[int]) -> list[tuple[int, int, int]]:
        """(pair, user, preferred response or 0 for neither) of those people's labels on the pairs, oldest first."""
        ...

    # ---- tasks and labels
    def open_task(self, user_id: int) -> Task | None:
        """The user's task that is handed out, unanswered and not expired."""
        ...

    def available_pairs(self, user_id: int) -> AvailablePairs:
        """What the user may be handed now, excluding an open task of theirs."""
        ...

    def hand_out(
        self,
        user_id: int,
        pair_id: int,
        *,
        swap: bool,
        reason: str,
        expires_at: datetime,
        prediction: Prediction | None = None,
    ) -> Task | None:
        """Reserve a pair; ``swap`` shows the second response left.  An open task is returned instead.

        None, choose again: since the pair was chosen the user has labelled it (and the reason is not "repeat"), other
        people have taken its last place, or it has become or ceased to be a gold pair.
        """
        ...

    def pin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> PinnedPair:
        """Put a pair at the front of the queue of everybody who has not answered it; refused for a gold pair."""
        ...

    def unpin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> bool:
        """Take it away from there; False, no change: it was not there."""
        ...

    def pinned_pairs(self, study_id: int) -> list[PinnedPair]:
        """What stands at the front of the queue, the last asked for first."""
        ...

    def submit(
        self,
        task_id: int,
        user_id: int,
        choice: Choice,
        *,
        strength: int = 1,
        reason: str = "",
        tags: Sequence[str] = (),
        milliseconds: int | None = None,
        guidelines: int | None = None,
    ) -> Label | None:
        """Label, task closed, revision moved, together.

        None, no change: the task is not open, not this user's, or expired and its pair is full by now.
        """
        ...

    def skip(self, task_id: int, user_id: int) -> bool:
        """Put a task's pair off until nothing else is left; False, no change: not open or not this user's."""
        ...

    def undo(self, user_id: int) -> Task | None:
        """Take back the user's last label or skip and open its task again; an open task of the user is withdrawn."""
        ...

    def edit(
        self,
        label_id: int,
        user_id: int,
        choice: Choice,
        *,
        strength: int = 1,
        reason: str = "",
        tags: Sequence[str] = (),
        guidelines: int | None = None,
    ) -> Label:
        """The label that stands from now on; the old row stays, superseded."""
        ...

    def draft(self, task_id: int, user_id: int, draft: Draft) -> bool:
        """Keep what is being typed at an open task; it goes when the task closes."""
        ...

    def draft_of(self, task_id: int, user_id: int) -> Draft: ...
    def label_count(self, study_id: int) -> int:
        """Preferences that count: of visible users who are not excluded, gold and practice aside."""
        ...

    def labels(self, study_id: int, *, user_id: int | None = None, pair_id: int | None = None) -> list[Label]:
        """Preferences that count, oldest first; a user's own ones whether they are excluded or not."""
        ...

    def history(self, user_id: int) -> list[Label]:
        """The user's preferences, newest first, with those superseded by an edit."""
        ...

    def votes(self, pair_id: int, *, excluding: int) -> tuple[int, int]:
        """Preferences of other users for the first and the second response."""
        ...

    def answer_counts(self, study_id: int) -> tuple[int, int]:
        """(people, answers) of the table that ``answers`` gives."""
        ...

    def answers(self, study_id: int) -> AnswerTable:
        """Every counting answer of visible users, gold and practice and excluded users among them."""
        ...

    def prediction_records(self, user_id: int, *, last: int) -> list[PredictionRecord]:
        """The user's last decided labels with a forecast, oldest first."""
        ...

    def prediction_counts(self, study_id: int) -> list[tuple[int, int, int]]:
        """(user, foretold right, foretold) over the labels that ``foretold`` lists, of everybody who has any."""
        ...

    def export(self, study_id: int, *, users: Sequence[int] | None = None) -> Iterator[dict]:
        """Rows for the export file: user, prompt, both responses as shown, choice, strength, time; of some users only
        where they are named.
        """
        ...

    def progress(self, user_id: int) -> Progress: ...
    def training_data(self, study_id: int) -> TrainingData:
        """Texts, users and what ``label_count`` counts, read in one transaction, with the revision as watermark."""
        ...

    # ---- runs and snapshots
    def add_run(self, study_id: int, kind: str, reason: str, *, retry_of: int | None = None) -> Run: ...
    def claim_run(self, run_id: int | None = None) -> Run | None:
        """The oldest queued run, or the named one, running from now on; None where it is not queued.

        Of several workers that claim at once, each run goes to one.
        """
        ...

    def update_run(self, run_id: int, **changes: object) -> None: ...
    def finish_run(self, run_id: int, state: RunState, *, message: str = "", snapshot: str | None = None) -> None: ...
    def run(self, run_id: int) -> Run: ...
    def runs(self, study_id: int, *, kind: str | None = None, limit: int = 50) -> list[Run]:
        """Newest first; of every kind unless one is named."""
        ...

    def active_runs(self) -> list[Run]:
        """Queued or running, of all studies, oldest first (with ``study_of_run`` to place them)."""
        ...

    def study_of_run(self, run_id: int) -> int: ...
    def publish(self, study_id: int, record: SnapshotRecord, *, run_id: int | None) -> None:
        """Record a snapshot that stands in its folder, make it champion and finish its run, in one transaction."""
        ...

    def snapshots(self, study_id: int) -> list[SnapshotRecord]:
        """Newest first."""
        ...

    def promote(self, study_id: int, version: str, *, by: int | None = None) -> None:
        """Make a recorded snapshot the champion."""
        ...

    def write_note(self, study_id: int, version: str, note_text: str, *, by: int | None = None) -> None:
        """What people write about a snapshot; it is not part of the snapshot, and may be changed."""
        ...

    def champion(self, study_id: int) -> SnapshotRecord | None: ...
    def schedule(self, study_id: int) -> Schedule | None:
        """When the trainer acts by itself for this study; None: as the installation is set."""
        ...

    def set_schedule(self, study_id: int, schedule: Schedule | None, *, by: int | None = None) -> None: ...
    def revision(self, study_id: int) -> int: ...
    def revisions_since(self, study_id: int, watermark: int) -> int:
        """Changes of labels after the watermark."""
        ...

    # ---- the worker's sign of life
    def heartbeat(self, pid: int, state: str) -> None: ...
    def worker(self) -> tuple[int, str, datetime] | None:
        """(process id, state, time) of the last heartbeat."""
        ...
