"""The verb of the record of changes: who changed what, in one sentence per event.

The store keeps events under short names with their details as JSON; both stay as they were written.  Each kind of event
has one function here that puts it into words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from copl_core.records import AuditEntry, Choice, counted
from copl_core.study import access
from copl_core.study.roles import OWNER, needs
from copl_core.study.session import Session
from copl_core.study.views import CHOICE_WORDS, QUARANTINE_WORDS, day_and_time
from copl_core.study_settings import Invite

PRODUCT = "The studio"  # who acts where no user does: the product itself, or its terminal
_NOTE_LENGTH = 120  # characters of a note that a sentence repeats
_ASSIGNMENT = {
    "overlap": "people per pair",
    "open": "who may join",
    "order": "the order of new pairs",
    "uniform": "the share drawn at random",
    "repeats": "the share of repeated pairs",
    "gold": "the share of gold pairs",
    "practice": "the number of practice pairs",
    "reserve_minutes": "the minutes a pair is reserved",
    "daily_goal": "the daily goal",
    "text_format": "how texts are set",
    "quarantine": "whose answers wait for an owner",
    "picture_hosts": "the hosts whose pictures are shown",
    "shared_epsilon": "the ε of a day of counts that everybody sees",
    "shared_total": "the ε of one person in these counts",
    "shared_since": "the first day of these counts",
}
_EMPTY = {"overlap": "everybody", "daily_goal": "none", "reserve_minutes": "the default"}
_SHARES = {"uniform", "repeats", "gold"}
_SCHEDULE = {
    "automatic": "automatic runs",
    "refit_labels": "new labels before a refit of the graph",
    "refit_seconds": "seconds between two refits of the graph",
    "reward_labels": "new labels before a fit of the reward model",
    "reward_seconds": "seconds between two fits of the reward model",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the record."""

    at: datetime
    kind: str  # in words, for a list to choose from
    sentence: str  # without Markdown, with the name of who did it


@dataclass(frozen=True, slots=True)
class Names:
    """What sentences look up by number."""

    users: Mapping[int, str]
    invites: Mapping[int, Invite]

    def user(self, user_id: object) -> str:
        return self.users.get(user_id, f"person {user_id}") if isinstance(user_id, int) else PRODUCT


@needs(OWNER)
def changes(session: Session, limit: int = 100) -> tuple[list[Change], bool]:
    """(the newest lines of the record, newest first, at least ``limit`` of them if there are as many; whether there are
    earlier ones).
    """
    invites = {invite.id: invite for invite in session.store.invites(session.id)}
    n_read = limit + 1
    while True:
        entries = access.audit(session, limit=n_read)
        names = Names(_user_names(session, entries, [invite.by for invite in invites.values()]), invites)
        lines, more = list(lines_of(entries, names)), len(entries) == n_read
        if more:
            lines.pop()  # earlier entries may belong to it
        if len(lines) >= limit or not more:
            return lines, more
        n_read *= 4  # many entries were one line


def _user_names(session: Session, entries: Sequence[AuditEntry], more: Sequence[int | None]) -> dict[int, str]:
    """The names of the users whom entries may name, every number in them being looked up as a user's, and of more."""
    numbers = {one for entry in entries for one in (entry.user_id, *entry.detail.values()) if type(one) is int}
    numbers |= {one for entry in entries if entry.event in ("alike", "alike ended") for one in entry.detail["users"]}
    numbers |= {one for one in more if one is not None}
    return {id: user.name for id, user in access.users_of(session, numbers).items()}


def lines_of(entries: Iterable[AuditEntry], names: Names) -> Iterable[Change]:
    """One line per entry; those of ``_SEVERAL`` that the product wrote one after the other are one line."""
    for in_a_row, group in groupby(entries, key=_in_a_row):
        several = list(group)
        if in_a_row and len(several) > 1:
            newest, oldest = several[0], several[-1]
            words = _SEVERAL[newest.event](len(several), newest, oldest, names)
            yield Change(newest.at, kind_of(newest.event), words)
        else:
            yield from (Change(one.at, kind_of(one.event), sentence(one, names)) for one in several)


def _in_a_row(entry: AuditEntry) -> tuple[str, object] | None:
    """What entries of one line have in common; None for one that is a line of its own."""
    if entry.event not in _SEVERAL or entry.user_id is not None:
        return None
    if entry.event == "champion":
        return entry.event, None
    return (entry.event, entry.detail.get("user")) if entry.detail.get("terminal") else None


def _champions(n: int, newest: AuditEntry, oldest: AuditEntry, names: Names) -> str:
    """Earlier versions recorded every snapshot that became the champion by itself."""
    first, last = oldest.detail.get("after"), newest.detail.get("after")
    return f"{n:,} snapshots in a row became the champion without anybody's choice, {first} to {last}."


def _terminal_links(n: int, newest: AuditEntry, oldest: AuditEntry, names: Names) -> str:
    """Every start of the studio prints one."""
    owner, since = names.user(newest.detail.get("user")), day_and_time(oldest.at)
    return (
        f"{PRODUCT} made {n:,} sign-in links for {owner} in a terminal, which open every study as its owner, the first "
        f"of them on {since}."
    )


_SEVERAL: dict[str, Callable[[int, AuditEntry, AuditEntry, Names], str]] = {
    "champion": _champions,
    "sign-in link": _terminal_links,
}


def kind_of(event: str) -> str:
    """The kind of an event in words; an unknown one keeps its stored name."""
    return _KINDS[event][0] if event in _KINDS else event


def sentence(entry: AuditEntry, names: Names) -> str:
    """An event in one sentence.  One of an unknown kind, or with details of another shape, lists them as stored."""
    who = names.user(entry.user_id)
    if entry.event in _KINDS:
        try:
            words = _KINDS[entry.event][1](who, entry, names)
            return words if words.endswith((".”", "?”", "!”", "…”")) else f"{words}."
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # the entry of another version
    details = ", ".join(f"{name} {_plain(value)}" for name, value in entry.detail.items())
    return f"{who} made a change of the kind “{entry.event}”" + (f": {details}." if details else ".")


# ---- words


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _listing(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _a(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"


def _quoted(text: str) -> str:
    short = " ".join(text.split())
    return f"“{short if len(short) <= _NOTE_LENGTH else short[: _NOTE_LENGTH - 1].rstrip() + '…'}”"


def _moment(stored: str) -> str:
    return day_and_time(datetime.fromisoformat(stored))


def _from_to(what: str, before: str, after: str) -> str:
    return f"{what} from {before} to {after}"


# ---- one function per kind of event


def _role(who: str, entry: AuditEntry, names: Names) -> str:
    user, before, after = (entry.detail[name] for name in ("user", "before", "after"))
    return f"{who} changed the role of {names.user(user)} from {before} to {after}"


def _signed_out(who: str, entry: AuditEntry, names: Names) -> str:
    user = names.user(entry.detail["user"])
    ended = counted(entry.detail["tokens"], "sign-in link")
    if entry.detail.get("terminal"):
        return (
            f"An owner of another study signed out everywhere, which ended links of the terminal for {user} ({ended})"
        )
    if "browsers" in entry.detail:
        ended += f" and {counted(entry.detail['browsers'], 'browser')}"
    return f"{who} signed out everywhere ({ended})" if user == who else f"{who} signed {user} out everywhere ({ended})"


def _browser_signed_out(who: str, entry: AuditEntry, names: Names) -> str:
    user = names.user(entry.detail["user"])
    return f"{who} signed out of one of their browsers" if user == who else f"{who} signed {user} out of one browser"


def _sign_in_link(who: str, entry: AuditEntry, names: Names) -> str:
    made = f"{who} made a sign-in link for {names.user(entry.detail['user'])}"
    return f"{made} in a terminal, which opens every study as its owner" if entry.detail["terminal"] else made


def _invite(who: str, entry: AuditEntry, names: Names) -> str:
    role, uses, expires = (entry.detail[name] for name in ("role", "uses", "expires"))
    many = f"any number of {role}s" if uses is None else _a(role) if uses == 1 else f"{uses:,} {role}s"
    return f"{who} made an invite for {many}" + (f", open until {_moment(expires)}" if expires else "")


def _invite_accepted(who: str, entry: AuditEntry, names: Names) -> str:
    invite = names.invites.get(entry.detail["invite"])
    by = names.user(invite.by) if invite is not None and invite.by is not None else ""
    role = _a(entry.detail["role"])
    return f"{by} invited {who} as {role}, and {who} joined" if by else f"{who} joined by an invite as {role}"


def _invite_revoked(who: str, entry: AuditEntry, names: Names) -> str:
    invite = names.invites.get(entry.detail["invite"])
    return f"{who} revoked an invite" + (f" for {invite.role}s, by which {invite.used} had joined" if invite else "")


def _email(who: str, entry: AuditEntry, names: Names) -> str:
    email, before, after = (entry.detail[name] for name in ("email", "before", "after"))
    if after is None:
        return f"{who} refused sign-in to {email}"
    earlier = "" if before in (None, after) else f", no longer as {_a(before)}"
    return f"{who} let {email} sign in as {_a(after)}{earlier}"


def _account(who: str, entry: AuditEntry, names: Names) -> str:
    user = names.user(entry.detail["user"])
    if entry.detail["connected"]:
        return f"{who} connected an account of an identity provider, which signs in as {user}"
    return f"{who} disconnected the accounts that signed in as {user}"


def _service_token(who: str, entry: AuditEntry, names: Names) -> str:
    name, role = entry.detail["name"], entry.detail["role"]
    may = {
        "groups": "ask for rewards of groups",
        "rewards": "ask for rewards",
        "people": "ask for rewards and embeddings",
    }[role]
    return f"{who} made the token {_quoted(name)}, by which a program may {may}"


def _service_token_revoked(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} revoked the token {_quoted(entry.detail['name'])}"


def _exclude(who: str, entry: AuditEntry, names: Names) -> str:
    labels, user = counted(entry.detail["labels"], "label"), names.user(entry.detail["user"])
    if entry.detail["excluded"]:
        return f"{who} excluded {user} from training ({labels})"
    return f"{who} included {user} in training again ({labels})"


def _quarantine(who: str, entry: AuditEntry, names: Names) -> str:
    user, why = names.user(entry.detail["user"]), " ".join(entry.detail["grounds"]).removesuffix(".")
    if entry.detail.get("new"):
        return f"{who} leaves {user}, who has just joined, out until they have answered enough pairs twice"
    return f"{who} left {user} out until an owner decides ({counted(entry.detail['labels'], 'label')}). {why}"


def _quarantine_ended(who: str, entry: AuditEntry, names: Names) -> str:
    user, labels = names.user(entry.detail["user"]), counted(entry.detail["labels"], "label")
    if entry.detail.get("owner"):
        return f"{who} ended the wait of {user}, who is an owner now ({labels})"
    return f"{who} counts {user}, who has joined and answered enough pairs twice ({labels})"


def _quarantine_decided(who: str, entry: AuditEntry, names: Names) -> str:
    user, labels = names.user(entry.detail["user"]), counted(entry.detail["labels"], "label")
    return f"{who} decided to {'count' if entry.detail['count'] else 'leave out'} {user} ({labels})"


def _alike(who: str, entry: AuditEntry, names: Names) -> str:
    people = [names.user(user) for user in entry.detail["users"]]
    return f"{who} accepted that {_listing(people)} {'answer alike' if people[1:] else 'answers like others'}"


def _alike_ended(who: str, entry: AuditEntry, names: Names) -> str:
    people = [names.user(user) for user in entry.detail["users"]]
    return f"{who} took back that {_listing(people)} {'answer alike' if people[1:] else 'answers like others'}"


def _left(who: str, entry: AuditEntry, names: Names) -> str:
    person, labels = names.user(entry.detail["user"]), counted(entry.detail["labels"], "label")
    if entry.detail["own"]:
        return f"{person} left the study, and all that was theirs was deleted ({labels})"
    return f"{who} deleted {person} and all that was theirs ({labels})"


def _simulated(who: str, entry: AuditEntry, names: Names) -> str:
    labels = counted(entry.detail["labels"], "label")
    if entry.detail["include"]:
        return f"{who} included simulated people again ({labels})"
    return f"{who} excluded simulated people ({labels})"


def _models(who: str, entry: AuditEntry, names: Names) -> str:
    labels = counted(entry.detail["labels"], "label")
    if entry.detail["include"]:
        return f"{who} let the training learn from language models too ({labels})"
    return f"{who} let the training learn from people only, without language models ({labels})"


def _undo(who: str, entry: AuditEntry, names: Names) -> str:
    if "skip" in entry.detail:
        return f"{who} went back to pair {entry.detail['skip']}, which they had skipped"
    return f"{who} undid an answer (label {entry.detail['label']})"


def _edit(who: str, entry: AuditEntry, names: Names) -> str:
    before, after = (CHOICE_WORDS[Choice(entry.detail[name])] for name in ("before", "after"))
    label = f"label {entry.detail['label']}"
    if before == after:
        return f"{who} changed the strength or the reason of an answer ({label})"
    return f"{who} changed an answer from {before} to {after} ({label})"


def _confirm(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} confirmed an answer (label {entry.detail['label']})"


def _import(who: str, entry: AuditEntry, names: Names) -> str:
    parts = [("labels", "label", ""), ("pairs", "new pair", ""), ("users", "new person", "new people")]
    made = [counted(entry.detail[name], *words) for name, *words in parts if entry.detail[name]]
    return f"{who} imported {_listing(made)}" + (f" from {_quoted(file)}" if (file := entry.detail.get("file")) else "")


def _restored(who: str, entry: AuditEntry, names: Names) -> str:
    return (
        f"{who} restored this study from a bundle of {_quoted(entry.detail['study'])}, {_moment(entry.detail['made'])}"
    )


def _assignment(who: str, entry: AuditEntry, names: Names) -> str:
    changed = [
        _from_to(_ASSIGNMENT[name], *(_assignment_value(name, value) for value in values))
        for name, values in entry.detail.items()
    ]
    return f"{who} changed {_listing(changed)}"


def _assignment_value(name: str, value: Any) -> str:
    if name == "open":
        return "anybody with the address" if value else "invited people"
    if value is None:
        return _EMPTY[name]
    if name == "quarantine":
        return QUARANTINE_WORDS[value]
    if name == "picture_hosts":
        return ", ".join(value) or "none"
    if name == "shared_since":
        return value or "none"
    return f"{value:.0%}" if name in _SHARES else _plain(value)


def _guidelines(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} wrote version {entry.detail['version']} of the guidelines"


def _gold(who: str, entry: AuditEntry, names: Names) -> str:
    pair, before, after = (entry.detail[name] for name in ("pair", "before", "after"))
    if after is None:
        return f"{who} took pair {pair} from the gold pairs"
    return f"{who} made pair {pair} a gold pair" if before is None else f"{who} changed the known answer of pair {pair}"


def _report_resolved(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} resolved reported problem {entry.detail['report']}"


def _pin(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} pinned pair {entry.detail['pair']}, so that everybody gets it next"


def _unpin(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} unpinned pair {entry.detail['pair']}"


def _withdrawn(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} withdrew pair {entry.detail['pair']}, so that nobody gets it any more"


def _withdrawn_ended(who: str, entry: AuditEntry, names: Names) -> str:
    return f"{who} let pair {entry.detail['pair']} be handed out again"


def _group_name(who: str, entry: AuditEntry, names: Names) -> str:
    group, before, after = (entry.detail[name] for name in ("group", "before", "after"))
    if not after:
        return f"{who} took back the name {_quoted(before)} of group {group}"
    return f"{who} named group {group} {_quoted(after)}" + (f", before: {_quoted(before)}" if before else "")


def _champion(who: str, entry: AuditEntry, names: Names) -> str:
    before, after = entry.detail["before"], entry.detail["after"]
    instead = f" in place of {before}" if before else ""
    if entry.user_id is None:
        return f"Snapshot {after} became the champion{instead} without anybody's choice"
    return f"{who} promoted snapshot {after} to champion{instead}"


def _note(who: str, entry: AuditEntry, names: Names) -> str:
    snapshot, after = entry.detail["snapshot"], entry.detail["after"]
    return f"{who} noted at snapshot {snapshot}: {_quoted(after)}" if after else f"{who} removed the note of {snapshot}"


def _schedule(who: str, entry: AuditEntry, names: Names) -> str:
    before, after = entry.detail["before"], entry.detail["after"]
    if after is None:
        return f"{who} set the schedule of automatic runs back to the installation's"
    if before is None:
        values = [f"{what} {_plain(after[name])}" for name, what in _SCHEDULE.items() if name in after]
        return f"{who} set the schedule of this study: {_listing(values)}"
    changed = [
        _from_to(what, _plain(before.get(name)), _plain(after[name]))
        for name, what in _SCHEDULE.items()
        if name in after and before.get(name) != after[name]
    ]
    return f"{who} changed the schedule: {_listing(changed)}"


# Stored name of an event → (its kind in words, the function that makes its sentence)
_KINDS: dict[str, tuple[str, Callable[[str, AuditEntry, Names], str]]] = {
    "role": ("roles", _role),
    "signed out": ("sign-outs", _signed_out),
    "browser signed out": ("sign-outs", _browser_signed_out),
    "sign-in link": ("sign-in links", _sign_in_link),
    "invite": ("invites", _invite),
    "invite accepted": ("invites", _invite_accepted),
    "invite revoked": ("invites", _invite_revoked),
    "e-mail": ("e-mail addresses", _email),
    "account": ("accounts", _account),
    "service token": ("tokens of programs", _service_token),
    "service token revoked": ("tokens of programs", _service_token_revoked),
    "exclude": ("exclusion from training", _exclude),
    "quarantine": ("people left out until a decision", _quarantine),
    "quarantine ended": ("people left out until a decision", _quarantine_ended),
    "quarantine decided": ("people left out until a decision", _quarantine_decided),
    "alike": ("answers that are too much alike", _alike),
    "alike ended": ("answers that are too much alike", _alike_ended),
    "left": ("people who left", _left),
    "simulated": ("simulated people", _simulated),
    "models": ("language models", _models),
    "undo": ("undone answers", _undo),
    "edit": ("changed answers", _edit),
    "confirm": ("confirmed answers", _confirm),
    "import": ("imports", _import),
    "restored": ("imports", _restored),
    "room": ("assignment", _assignment),
    "guidelines": ("guidelines", _guidelines),
    "gold": ("gold pairs", _gold),
    "report resolved": ("reports", _report_resolved),
    "ask": ("pinned pairs", _pin),
    "ask ended": ("pinned pairs", _unpin),
    "withdrawn": ("withdrawn pairs", _withdrawn),
    "withdrawn ended": ("withdrawn pairs", _withdrawn_ended),
    "group name": ("group names", _group_name),
    "champion": ("champions", _champion),
    "note": ("notes", _note),
    "schedule": ("schedule", _schedule),
}
