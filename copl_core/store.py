"""What a study needs from its database, as a Protocol: ``db.store.SqlStore`` implements it, tests may use their own.

Every method is one transaction: all of it is done when the method returns, and none of it when the method raises.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from copl_core.records import (
    Activity,
    AuditEntry,
    BrowserSession,
    Choice,
    DeletedStudy,
    Departure,
    Ground,
    Identity,
    ImportReport,
    ImportRow,
    Kind,
    Label,
    Pair,
    Progress,
    Quarantine,
    Response,
    Right,
    Role,
    Run,
    RunState,
    SignedInBrowser,
    SnapshotRecord,
    StudyRecord,
    Task,
    TrainerRecord,
    TrainingData,
    User,
    WriteRun,
)
from copl_core.study_settings import (
    AnswerTable,
    AssignmentSettings,
    AvailablePairs,
    DayOfAnswers,
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
    ServiceRole,
    ServiceToken,
    SharedDay,
    WithdrawnPair,
)


class Store(Protocol):
    def close(self) -> None:
        """Give back every connection; a later call opens new ones."""
        ...

    # ---- studies
    def studies(self) -> list[StudyRecord]:
        """The studies that are whole, oldest first."""
        ...

    def study(self, study_id: int) -> StudyRecord: ...
    def create_study(
        self, name: str, *, demo: bool = False, new: bool = False, open: bool = True, ready: bool = True
    ) -> StudyRecord:
        """The study of that name, created if there is none; the first one becomes the current one.

        Args:
            new: refuse a name that is in use.
            open: whether anybody with the address may join it.
            ready: otherwise no list shows it before ``finish_study``.
        """
        ...

    def finish_study(self, study_id: int) -> None:
        """Show a study that has been made whole."""
        ...

    def drop_unfinished(self, study_id: int | None = None) -> list[int]:
        """Delete a study that never became whole, or all such studies; returns their ids."""
        ...

    def hold(self, right: Right, *, alone: bool = False, seconds: float = 0.0) -> AbstractContextManager[bool]:
        """A right for the block: whether it is held.  A process that is killed gives it back.

        Args:
            alone: no other process that shares the database has it; otherwise all may have it at once.
            seconds: how long to wait for it.
        """
        ...

    # ---- bundles
    def schema(self) -> str:
        """The version of the tables; versions are ordered as text."""
        ...

    def read_study(self, study_id: int, take: Callable[[str, Iterator[dict]], None]) -> None:
        """Everything of a study at one moment, without secrets.

        Args:
            take: called with each part's name and rows, which are JSON values and can be read once.

        The first part is "study" with one row.  Parents come before children, and rows in the order of their ids.
        """
        ...

    def restore_rows(self, study_id: int, rows: Iterable[tuple[str, dict]]) -> dict[str, np.ndarray]:
        """Rows of ``read_study``, but "study", into a study that nobody sees yet, in several transactions.

        Returns:
            part → (2, n) ids: those of the rows, and those that they have here; both ascending.

        Raises:
            CoplError: a row is not as ``read_study`` gives it.
        """
        ...

    def finish_restored(
        self, study_id: int, study: dict, made: str, manifest: str | None = None, *, by: int | None = None
    ) -> None:
        """Write the row of "study" of a bundle that was made at a time; the new study keeps its own name.

        Args:
            manifest: SHA-256 of the champion's manifest, which is not that of the bundle.

        Raises:
            CoplError: the row is not as ``read_study`` gives it, or labels show responses of other pairs.
        """
        ...

    def current_study(self) -> StudyRecord | None:
        """The study that people without a link see: the last one made current."""
        ...

    def make_current(self, study_id: int) -> None: ...
    def include_simulated(self, study_id: int, include: bool, *, by: int | None = None) -> None:
        """The switch for simulated users: when off, lists and training data leave them out; nothing is deleted."""
        ...

    def include_models(self, study_id: int, include: bool, *, by: int | None = None) -> None:
        """The switch for language models: when off, training and votes leave them out, and lists mark them."""
        ...

    # ---- users
    def user_counts(self, study_id: int) -> dict[Kind, int]:
        """Kind → number of its users, as ``users`` lists them; kinds without users are left out."""
        ...

    def users(self, study_id: int, *, ids: Sequence[int] | None = None, most: int | None = None) -> list[User]:
        """The users of a study, by id; only those of ``ids``, or the first ``most``.

        A list of everybody takes seconds where there are a million.
        """
        ...

    def find_users(self, study_id: int, part: str, most: int) -> list[User]:
        """At most ``most`` users whose name contains a text, in any case, the shortest names first; by id for ""."""
        ...

    def users_of_kind(self, study_id: int, kind: Kind) -> list[int]:
        """The ids of the users of a kind, shown or not, ascending; those of people take as long as ``users``."""
        ...

    def left_out(self, study_id: int) -> list[int]:
        """The ids of the users who are excluded or quarantined, shown or not, ascending."""
        ...

    def some_users(self, study_id: int, share: float) -> list[int]:
        """A sample of the ids of users with answers, always the same one, ascending: about ``share`` of them."""
        ...

    def user(self, user_id: int) -> User: ...
    def member(self, study_id: int, user_id: int) -> User | None:
        """The user, if it is one of this study, whether shown or not."""
        ...

    def user_named(self, study_id: int, name: str) -> User | None:
        """The user of that name, unless the study leaves out simulated users and it is one."""
        ...

    def create_user(
        self,
        study_id: int,
        name: str,
        *,
        kind: Kind = Kind.HUMAN,
        role: Role = Role.ANNOTATOR,
        true_group: str | None = None,
    ) -> User:
        """The user of that name, created if there is none; an existing user is returned unchanged."""
        ...

    def set_role(self, user_id: int, role: Role, *, by: int | None = None) -> User:
        """Refused for the last owner of a study."""
        ...

    def exclude(self, user_id: int, excluded: bool, *, by: int | None = None) -> User:
        """Exclude a user's labels from training and votes, or include them again; the user's own lists keep them."""
        ...

    def quarantine(self, user_id: int, grounds: Sequence[Ground]) -> bool:
        """Leave a person's labels out of training and votes until an owner decides; whether anything has changed.

        Nothing changes for owners, for those who are excluded, and for those whom an owner has decided to count.
        Who becomes an owner counts again.
        """
        ...

    def end_quarantine(self, user_id: int) -> bool:
        """Count a quarantined person again, without a decision of an owner; whether anything has changed."""
        ...

    def decide_quarantine(self, user_id: int, count: bool, *, by: int | None = None) -> User:
        """Count a quarantined person for good, or exclude them.

        Raises:
            CoplError: they are not quarantined any more.
        """
        ...

    def accept_alike(self, study_id: int, user_ids: Sequence[int], *, by: int | None = None) -> None:
        """Keep that an owner accepts accounts whose answers are more alike than taste explains."""
        ...

    def end_alike(self, study_id: int, user_ids: Collection[int], *, by: int | None = None) -> bool:
        """Take back that these accounts are accepted; False where they are not, or not any more."""
        ...

    def accepted_alike(self, study_id: int) -> list[frozenset[int]]:
        """The sets of ids of users that owners have accepted so, the one that was accepted first first."""
        ...

    def quarantines(self, study_id: int) -> list[Quarantine]:
        """Everybody who was ever quarantined, with what was decided, the newest first."""
        ...

    def audit(self, study_id: int, *, limit: int = 100) -> list[AuditEntry]:
        """Who changed what, newest first."""
        ...

    # ---- sign-in (hashes only)
    def add_token(
        self, user_id: int, token_hash: str, *, lasts: timedelta, terminal: bool = False, by: int | None = None
    ) -> None:
        """A sign-in link of a user; one that anybody but they themselves makes is in the record.

        Args:
            lasts: how long it opens; one that the user makes lasts half a year from its last use instead, as a session.
            terminal: made by somebody who has the whole installation; a session begun with it opens every study.
        """
        ...

    def user_by_token(self, study_id: int, token_hash: str) -> User | None:
        """None: the token is unknown or has expired."""
        ...

    def drop_tokens(self, user_id: int, *, browser: str | None = None, by: int | None = None) -> int:
        """Sign a user out everywhere, of browsers too; returns the number of tokens deleted.  Tokens of the terminal go
        where they sign in as this user.

        Args:
            browser: the hash of a session of the user: the users as whom it acts in other studies are signed out too.
        """
        ...

    def start_session(
        self, token_hash: str, session_hash: str, *, known: str | None = None, name: str = ""
    ) -> str | None:
        """The hash of the session in which the token's user is signed in; None: the token is unknown.

        The live session ``known`` is used if nobody else of that study is signed in there; otherwise a new one starts.

        Args:
            name: of the browser, of at most 60 characters; empty: not known.

        Raises:
            LinkExpired: the time of the token is over.
        """
        ...

    def activity(self, study_id: int, ids: Sequence[int]) -> dict[int, Activity]: ...
    def set_link_due(self, session_hash: str, user_id: int, due: bool) -> None:
        """Write down whether a user who has joined in this browser has still to keep a sign-in link; the first use of
        one ends it too.
        """
        ...

    def link_due(self, session_hash: str, user_id: int) -> bool: ...
    def link_for_another(self, token_hash: str, session_hash: str) -> tuple[str, str] | None:
        """(the name of who is signed in, that of the token's user) if the token would make the session somebody else,
        in any study; None: it would not, the token is unknown or has expired, or nobody is signed in.
        """
        ...

    def session_user(self, session_hash: str, study_id: int) -> User | None:
        """The user as whom a live session is signed in to a study."""
        ...

    def browser_session(self, session_hash: str) -> BrowserSession | None:
        """None: it has ended, or was not used for half a year."""
        ...

    def open_in_session(self, session_hash: str, study_id: int) -> None:
        """Remember the study that the session opened last."""
        ...

    def add_to_session(self, session_hash: str, user_id: int) -> None:
        """Sign a session in as a user too; nothing changes where it has a user in that study."""
        ...

    def end_session(self, session_hash: str) -> bool: ...
    def browsers_of(self, user_id: int, session_hash: str, *, most: int) -> list[SignedInBrowser]:
        """The live sessions of a user, and those that began with an account of theirs, the one seen last first.

        Args:
            session_hash: of the session that asks.
        """
        ...

    def end_session_of(self, user_id: int, session_id: int, *, by: int | None = None) -> None:
        """Sign a user out of one session.  Its other users stay, unless it began with an account of this user or in
        the terminal: then it ends.

        Raises:
            CoplError: it is no live session of this user.
        """
        ...

    def owner(self, study_id: int) -> User | None:
        """The owner with the smallest id."""
        ...

    def study_of_invite(self, token_hash: str) -> int | None: ...

    def join(self, study_id: int, name: str, token_hash: str, session_hash: str | None = None) -> User:
        """A new annotator with a token, and with the account with which the session began, if it did; refused if the
        study is not open or the name is in use.
        """
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
    def accept_invite(
        self, study_id: int, token_hash: str, name: str, user_token_hash: str, session_hash: str | None = None
    ) -> User:
        """As ``join``, with the role of an invite; refused unless the invite is open and the name free."""
        ...

    def set_email(self, study_id: int, email: str, role: Role | None, *, by: int | None = None) -> EmailRule:
        """Give an address a role, or None to refuse it: a user who signed in with it changes role, or is signed out."""
        ...

    def emails(self, study_id: int) -> list[EmailRule]: ...

    # ---- accounts at identity providers
    def start_identity_session(self, identity: Identity, session_hash: str, *, name: str = "") -> None:
        """A session of a browser that begins with an account; its address and name are kept as they are now."""
        ...

    def admit(self, session_hash: str, study_id: int) -> User | None:
        """The user as whom the account of a session opens a study, who is then signed in there.

        An account that the study does not know becomes the user whom the rule of its address names, who is created
        if necessary and has no other account.  None: the study does not admit it, or its address is refused.
        """
        ...

    def connect_identity(self, user_id: int, identity: Identity) -> None:
        """Let an account sign in as a user; refused where it is somebody else of that study."""
        ...

    def disconnect_identities(self, user_id: int, *, by: int | None = None) -> int:
        """Let no account sign in as a user any more, and sign them out everywhere; returns the number of accounts."""
        ...

    def identities_of(self, user_id: int) -> list[Identity]: ...

    def is_refused(self, user_id: int) -> bool:
        """Whether a rule refuses an address of the user or of the user's accounts."""
        ...

    # ---- tokens of programs (hashes only)
    def add_service_token(
        self, study_id: int, token_hash: str, name: str, role: ServiceRole, per_minute: int, *, by: int | None = None
    ) -> ServiceToken:
        """Refused if a token of that name is in use."""
        ...

    def service_tokens(self, study_id: int) -> list[ServiceToken]:
        """Newest first, with those that are revoked."""
        ...

    def service_token(self, token_hash: str) -> ServiceToken | None:
        """The token of any study with this hash; None: it is unknown or revoked."""
        ...

    def revoke_service_token(self, study_id: int, token_id: int, *, by: int | None = None) -> ServiceToken: ...

    # ---- settings of the study
    def assignment_settings(self, study_id: int) -> AssignmentSettings: ...
    def set_assignment(self, study_id: int, settings: AssignmentSettings, *, by: int | None = None) -> None: ...
    def shared_days(self, study_id: int) -> list[SharedDay]:
        """The counts that everybody sees, by day."""
        ...

    def days_to_share(self, study_id: int) -> list[DayOfAnswers]:
        """What is counted of the days that are over and not released yet, in order, where the study shares counts."""
        ...

    def keep_shared(self, study_id: int, days: Sequence[SharedDay]) -> None:
        """Release days; one that is released stays as it is."""
        ...

    def group_names(self, study_id: int) -> dict[int, str]:
        """Names that owners gave to groups, by group number."""
        ...

    def rename_group(self, study_id: int, group: int, name: str, *, by: int | None = None) -> None:
        """Name a group; the empty name gives it back the one made from what it prefers."""
        ...

    def guidelines(self, study_id: int) -> list[Guidelines]:
        """Every version, newest first."""
        ...

    def write_guidelines(self, study_id: int, text: str, *, by: int | None = None) -> int:
        """The new version; the newest existing one if the text is unchanged."""
        ...

    def set_gold(self, study_id: int, pair_id: int, preferred_id: int | None, *, by: int | None = None) -> None:
        """Give a pair a known answer, or remove it; a gold pair serves for attention checks only."""
        ...

    def gold(self, study_id: int) -> list[GoldPair]: ...
    def gold_of(self, pair_id: int) -> int | None: ...
    def report(self, user_id: int, response_id: int, text: str) -> Report: ...
    def reports(self, study_id: int, *, resolved: bool = False) -> list[Report]:
        """Newest first; with ``resolved``, the resolved ones too."""
        ...

    def resolve(self, study_id: int, report_id: int, *, by: int | None = None) -> Report: ...

    # ---- texts
    def import_rows(
        self, study_id: int, rows: Iterable[ImportRow], *, file: str | None = None, by: int | None = None
    ) -> ImportReport:
        """Add new prompts, responses, pairs, users and labels; idempotent by ``ImportRow.key``.

        Others label meanwhile: nothing that they write waits for more than a moment, and nobody sees anything of the
        rows before all are there.

        Args:
            file: the name of their file, for the record of changes.

        Raises:
            CoplError: another import does not end, or the study has changed meanwhile; nothing was kept.
        """
        ...

    def end_killed_imports(self) -> None:
        """Take away what killed imports have left; nothing happens while an import runs."""
        ...

    def try_import(self, study_id: int, files: Iterable[Iterable[ImportRow]]) -> list[ImportReport]:
        """What ``import_rows`` would do with one file after the other; nothing changes."""
        ...

    def pair(self, pair_id: int) -> Pair: ...
    def pairs(self, study_id: int) -> list[tuple[int, int, int]]:
        """(pair id, first response id, second response id) of every pair, by id."""
        ...

    def responses(self, response_ids: Sequence[int]) -> dict[int, Response]: ...
    def prompts(self, study_id: int) -> list[tuple[int, str]]: ...
    def prompt_responses(self, prompt_id: int) -> list[Response]: ...
    def study_of_pair(self, pair_id: int) -> int | None: ...
    def study_of_prompt(self, prompt_id: int) -> int | None: ...

    def pairs_by_prompt(self, study_id: int) -> list[tuple[int, int, int, int]]:
        """(pair id, first response id, second response id, prompt id) of every pair, grouped by prompt."""
        ...

    def sources(self, study_id: int) -> list[tuple[int, str]]:
        """(response id, source) of every response with a known source."""
        ...

    def vote_counts(self, study_id: int) -> dict[int, int]:
        """Pair → number of users with a counting preference on it, without excluded users; only pairs with any."""
        ...

    def votes_of(self, study_id: int, pair_ids: Sequence[int]) -> list[tuple[int, int, int]]:
        """(pair, user, preferred response or 0 for neither) of the same users' labels on the pairs, in the order of
        ``labels``."""
        ...

    # ---- tasks and labels
    def open_task(self, user_id: int) -> Task | None:
        """The user's task that is neither answered nor expired."""
        ...

    def available_pairs(self, user_id: int) -> AvailablePairs:
        """What the user may be handed now, apart from a task they have open."""
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
        """Reserve a pair; ``swap`` shows the second response on the left.  An open task is returned instead.

        None means "choose again": since the pair was chosen, the user has labelled it (and the reason is not "repeat"),
        other users have taken its last slot, it is withdrawn, or it has become or stopped being a gold pair.
        """
        ...

    def pin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> PinnedPair:
        """Make a pair the next task of every user who has not answered it; refused for a gold pair."""
        ...

    def unpin_pair(self, study_id: int, pair_id: int, *, by: int | None = None) -> bool:
        """Let a pair wait its turn again; False: it was not pinned, and nothing changes."""
        ...

    def pinned_pairs(self, study_id: int) -> list[PinnedPair]:
        """Pinned pairs, the last pinned first."""
        ...

    def withdraw_pairs(self, study_id: int, pair_ids: Sequence[int], *, by: int | None = None) -> int:
        """Hand out these pairs no more and withdraw the open tasks on them, gold pairs too; returns how many it newly
        is.  Their labels stay.
        """
        ...

    def hand_out_again(self, study_id: int, pair_ids: Sequence[int], *, by: int | None = None) -> int:
        """Undo ``withdraw_pairs``; returns of how many pairs."""
        ...

    def withdrawn_pairs(self, study_id: int) -> list[WithdrawnPair]:
        """Withdrawn pairs, the last withdrawn first."""
        ...

    def pairs_with(self, study_id: int, response_id: int) -> list[int]:
        """Ids of the pairs of the study with a response, ascending."""
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
        """Store the label, close the task and increase the revision, all together.

        None: nothing changes, because the task is not open, is another user's, or has expired and its pair is full.
        """
        ...

    def skip(self, task_id: int, user_id: int) -> bool:
        """Skip the pair of a task until no other pair is left; False: not open or another user's, nothing changes."""
        ...

    def undo(self, user_id: int) -> Task | None:
        """Undo the user's last label or skip and open its task again; the task that the user has open is withdrawn."""
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
        """Replace a label and return the new one; the old row stays, superseded."""
        ...

    def confirm(self, label_id: int, user_id: int) -> Label:
        """Store that the user has looked at their label again and that it is right; an edit makes a new label."""
        ...

    def draft(self, task_id: int, user_id: int, draft: Draft) -> bool:
        """Store the draft of an open task; it is deleted when the task closes."""
        ...

    def draft_of(self, task_id: int, user_id: int) -> Draft: ...
    def label_count(self, study_id: int, *, most: int | None = None) -> int:
        """Number of counting preferences of visible, not excluded users, without gold and practice.

        Counted up to ``most``: everybody is read otherwise, a tenth of a second at a million users.
        """
        ...

    def labels(self, study_id: int, *, user_id: int | None = None, pair_id: int | None = None) -> list[Label]:
        """Counting preferences; with ``user_id``, an excluded user's too.

        Imported ones by the times of their file, then each user's in the order given, whatever the clock shows.
        """
        ...

    def history(self, user_id: int) -> list[Label]:
        """The user's preferences in the opposite order to ``labels``, with those that an edit superseded."""
        ...

    def settled_labels(self, study_id: int) -> set[tuple[int, int, int]]:
        """(user, pair, preferred response) of decided labels that their users looked at twice: they confirmed one, or
        gave it in place of another."""
        ...

    def votes(self, pair_id: int, *, excluding: int) -> tuple[int, int]:
        """Preferences of other users for the first and the second response."""
        ...

    def answer_counts(self, study_id: int) -> tuple[int, int]:
        """(number of users, number of answers) of the table that ``answers`` returns."""
        ...

    def answered_since(self, study_id: int, label_id: int) -> tuple[list[int], int]:
        """(ids of the users who gave or changed an answer after a label, ascending, the id of the newest one)."""
        ...

    def newest_label(self) -> int:
        """The id of the newest label of all studies, 0 without one."""
        ...

    def answers_state(self, study_id: int) -> tuple[int, int]:
        """(revision, other changes): it changes with the table that ``answers`` returns, and takes no count.

        The revision alone does not: answers to gold pairs and those of people who are left out do not raise it.
        """
        ...

    def answers(
        self, study_id: int, *, users: Sequence[int] | None = None, pairs: Sequence[int] | None = None
    ) -> AnswerTable:
        """Every counting answer of visible users, including gold, practice and excluded users, ordered as ``labels``.

        Args:
            users, pairs: only answers of these users, or about these pairs; at most 5,000 of each.
        """
        ...

    def prediction_records(self, user_id: int, *, last: int) -> list[PredictionRecord]:
        """The user's last labels with a prediction and a decided first answer, oldest first.

        A prediction is about the first answer to its task: an edit changes no record, and an undone answer has none.
        """
        ...

    def prediction_counts(self, study_id: int) -> list[tuple[int, int, int]]:
        """(user, predicted correctly, predicted) over the labels of ``prediction_records``, of every user with any."""
        ...

    def export(self, study_id: int, *, users: Sequence[int] | None = None) -> Iterator[dict]:
        """Rows for the export file: user, prompt, both responses, which one was on the left where that is known,
        choice, strength, time; only of ``users`` if given.
        """
        ...

    def progress(self, user_id: int) -> Progress: ...
    def training_data(self, study_id: int) -> TrainingData:
        """Texts, users and the labels of ``label_count``, in one transaction; the revision is the watermark."""
        ...

    # ---- runs: one queue for trainers on any machine
    def clock(self) -> datetime:
        """The time by the clock of the database, by which leases and the ends of runs are measured."""
        ...

    def add_run(self, study_id: int, kind: str, reason: str, *, retry_of: int | None = None) -> Run: ...
    def add_due_run(self, study_id: int, kind: str, reason: str) -> Run | None:
        """A new run; None where the study has a queued or running one of that kind, as another trainer adds it."""
        ...

    def claim_run(
        self,
        run_id: int | None = None,
        *,
        kind: str | None = None,
        worker: str = "",
        seconds: float = 60.0,
        graphs_first: bool = False,
    ) -> Run | None:
        """The oldest queued run, of ``kind`` if given, or the named one, set to running; None: there is none, or its
        study has a running one of its kind.

        When several workers claim at once, each run goes to one of them, and each study has one run of a kind.

        Args:
            worker: holds the run for ``seconds``, and longer if it renews the lease.
            graphs_first: leave out a run while its study has an older graph run.
        """
        ...

    def renew_lease(self, run_id: int, token: int, seconds: float) -> bool:
        """Hold a run for ``seconds`` from now on; False: it is not held under this token any more."""
        ...

    def take_turn(self, run_id: int, token: int) -> bool:
        """Become the run that fits the graph of its study, until it ends; False: another run is.

        Raises:
            LeaseLost: the run is not held under this token any more.
        """
        ...

    def next_version(self, study_id: int, *, after: int = 0) -> str:
        """A version such as ``v0007`` that no snapshot of the study has or gets; its number is larger than ``after``.

        Numbers may be left out: that of a run which publishes nothing is not given again.
        """
        ...

    def update_run(self, run_id: int, *, token: int | None = None, **changes: object) -> None:
        """Raises ``LeaseLost`` where the run is not held under the token any more."""
        ...

    def finish_run(
        self,
        run_id: int,
        state: RunState,
        *,
        message: str = "",
        snapshot: str | None = None,
        token: int | None = None,
    ) -> None:
        """With a token: nothing changes where the run is not held under it any more."""
        ...

    def left_behind(self, workers: Sequence[str] = ()) -> list[Run]:
        """Running runs whose lease has expired, or that one of ``workers`` holds, oldest first."""
        ...

    def give_up_run(
        self, run_id: int, token: int, state: RunState, message: str, *, workers: Sequence[str] = ()
    ) -> list[Run]:
        """End a run of ``left_behind``, and queue it again if the state is INTERRUPTED, in one transaction.

        Returns:
            The queued run; nothing where the run has ended or its lease was renewed: then nothing changes.
        """
        ...

    def run(self, run_id: int) -> Run: ...
    def runs(self, study_id: int, *, kind: str | None = None, limit: int = 50) -> list[Run]:
        """Newest first; of every kind, or of ``kind``."""
        ...

    def active_runs(self) -> list[Run]:
        """Queued or running, of all studies, oldest first; ``study_of_run`` names the study."""
        ...

    def study_of_run(self, run_id: int) -> int: ...

    # ---- answers that a trainer writes
    def add_write_run(self, study_id: int, user_id: int, request: dict[str, Any], seconds: float) -> int:
        """Queue a run; its id.  It is wanted for so many seconds, and longer at each ``write_run``."""
        ...

    def write_run(self, run_id: int, seconds: float) -> WriteRun | None:
        """The run, which is wanted for so many seconds from now on; None where there is none any more."""
        ...

    def drop_write_run(self, run_id: int) -> None:
        """Remove a run; the trainer that writes learns so at its next ``keep_write_run``."""
        ...

    def claim_write_run(self, worker: str, seconds: float) -> WriteRun | None:
        """Claim the oldest run that is wanted and that no trainer holds, and remove those that nobody wants.

        One that several trainers have begun and not ended fails.
        """
        ...

    def keep_write_run(self, run_id: int, token: int, pieces: Sequence[Sequence[str]], seconds: float) -> bool:
        """Store what is written so far and renew the lease; False where the run is not held, or not wanted, any more.

        Args:
            pieces: of each answer.
        """
        ...

    def end_write_run(
        self, run_id: int, token: int, state: RunState, pieces: Sequence[Sequence[str]] = (), message: str = ""
    ) -> None:
        """End a run; in the state QUEUED it is given back, for another trainer."""
        ...

    # ---- trainers
    def heartbeat(self, worker: str, host: str, kinds: Sequence[str], state: str, device: str = "") -> None:
        """A sign of life of a trainer, at the time of the database's clock.

        Args:
            device: where it computes, as in ``Settings.device``.
        """
        ...

    def trainers(self) -> list[TrainerRecord]:
        """Those that gave a sign of life in the last day, the latest first."""
        ...

    # ---- snapshots
    def publish(self, study_id: int, record: SnapshotRecord, *, run_id: int | None, token: int | None = None) -> bool:
        """Record a snapshot whose folder is complete, make it champion and finish its run, in one transaction.

        A champion that a person chose after the run was queued stays; returns whether the snapshot is the champion.
        The same call again, after an answer that was lost, changes nothing and returns the same.

        Raises:
            LeaseLost: the run is not held under this token any more; nothing changes.
        """
        ...

    def snapshots(self, study_id: int) -> list[SnapshotRecord]:
        """Newest first."""
        ...

    def promote(self, study_id: int, version: str, *, by: int | None = None) -> None:
        """Make a recorded snapshot the champion."""
        ...

    def write_note(self, study_id: int, version: str, note_text: str, *, by: int | None = None) -> None:
        """Users' note on a snapshot; it is not part of the snapshot and may change."""
        ...

    def write_audit(self, study_id: int, version: str, facts: dict[str, Any]) -> None:
        """Put the figures of an audit into a snapshot's metrics, in place of earlier ones.

        Raises:
            CoplError: there is no such snapshot; nothing changes.
        """
        ...

    def champion(self, study_id: int) -> SnapshotRecord | None: ...
    def newest_watermarks(self, study_id: int) -> tuple[int | None, int | None]:
        """The highest watermark of all snapshots, and of all their reward models; None where there is none."""
        ...

    def schedule(self, study_id: int) -> Schedule | None:
        """When the trainer starts runs of this study automatically; None: as the installation is set."""
        ...

    def set_schedule(self, study_id: int, schedule: Schedule | None, *, by: int | None = None) -> None: ...
    def revision(self, study_id: int) -> int:
        """Raised by each change of what training reads: not by answers to gold pairs or of people who are left out."""
        ...

    def revisions_since(self, study_id: int, watermark: int) -> int:
        """Number of label changes after the watermark."""
        ...

    # ---- people who leave
    def begin_deletion(self, study_id: int, *, by: int | None = None) -> DeletedStudy:
        """Close a study for good: from now on it is in no list, nobody is signed in to it, its runs are cancelled, and
        its name is free.

        Raises:
            CoplError: there is no such study, or it is the only one; nothing changes.
        """
        ...

    def delete_rows(self, study_id: int, *, seconds: float | None = None) -> bool:
        """Delete the rows of a closed study in short transactions, for ``seconds`` at most; whether all are gone."""
        ...

    def deleted_studies(self) -> list[DeletedStudy]:
        """What stays of deleted studies, by id, also while their deletion goes on."""
        ...

    def finish_deletion(self, study_id: int) -> None:
        """Note that no file holds anything of a deleted study any more."""
        ...

    def forget_user(self, user_id: int, *, fewest: Mapping[str, int], by: int | None = None) -> Departure:
        """Delete all that is a user's: labels, reasons, drafts, tasks, reports, name, addresses, links; queue the run
        that replaces the champion.

        The audit trail keeps what they did, under a number.  Refused for the last owner of a study.

        Args:
            fewest: labels that a run of each kind needs; with too few for any, the study has no champion any more.
        """
        ...

    def stored_of(self, user_id: int) -> dict[str, Any]:
        """Everything that is stored of a user, with the texts it is about, as JSON values."""
        ...

    def left_users(self, study_id: int) -> list[int]:
        """Ids of the users who have left, which snapshots may still hold; ascending."""
        ...

    def knows_forgotten(self, study_id: int) -> bool:
        """Whether the champion has learned from somebody who has left since."""
        ...

    def forgotten_snapshots(self, study_id: int) -> list[str]:
        """Versions that have learned from somebody who has left since."""
        ...

    def drop_forgotten_snapshots(self, study_id: int) -> list[str]:
        """Delete the records of these versions unless the champion is one of them; returns the versions."""
        ...

    def unclean_studies(self) -> dict[int, int]:
        """Studies that somebody has left, whose files may still hold what went → how many have left so."""
        ...

    def overwrite_deleted(self) -> None:
        """Rewrite the files of the database without what deleted rows left.

        Raises:
            StoreUnavailable: it is in use; try again later.
            CoplError: there is no space, or no right to write.
        """
        ...

    def mark_clean(self, study_id: int, n_left: int) -> None:
        """The files hold nothing any more; nothing changes if more than ``n_left`` have left meanwhile."""
        ...

    def storage_mark(self, *, make: bool = False, left: bool = False) -> tuple[str, bool]:
        """(the mark of this database's storage, empty where it has none; whether it has been left in a storage).

        Args:
            make: give the database a mark if it has none.
            left: note that a storage has it now.
        """
        ...

    # ---- what watches an installation reads
    def schema_problem(self) -> str:
        """Why this program cannot work with the tables as they are now, and what to do; empty where it can."""
        ...

    def back_up_by_clock(self, hours: float, keep: int) -> Path | None:
        """Copy a SQLite database into the folder ``backups`` beside it, if the last copy is as old as that; the newest
        ``keep`` copies stay.  Returns the new one.

        Raises:
            CoplError: there is no room.
        """
        ...

    def drop_backups(self) -> None:
        """Remove these copies, and those that were made before a migration: they hold somebody who has left.

        Raises:
            CoplError: another process makes one now, and does not come to an end.
            OSError: one cannot be removed.
        """
        ...

    def recent_labels(self, seconds: float) -> dict[int, int]:
        """Study id → counting labels of the last seconds; of the last 20,000 labels, imported ones too."""
        ...
