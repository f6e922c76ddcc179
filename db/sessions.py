"""Sessions of browsers: who is signed in where.  Only hashes of secrets are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    union,
    update,
)

from copl_core.records import LEFT, Activity, BrowserSession, CoplError, LinkExpired, Role, SignedInBrowser, User
from db.base import AnyRow
from db.identity_models import IdentitySessionRow, IdentityUserRow
from db.identity_rows import (
    bind,
    bound,
    identity_of_row,
    identity_of_session,
    mark_refused,
    refused,
    studies_of_identity,
)
from db.members import study_of_row
from db.models import BrowserSessionRow, SessionUserRow, StudyRow, TokenRow, UserRow
from db.study_models import EmailRow, InviteRow, ServiceTokenRow
from db.texts import IDS
from db.transactions import THERE, Transactions, audit, clock, now, user_of, user_row

KEPT = timedelta(days=180)  # without a visit, after which a session ends, and a link that its user made for themself
TOUCHED = timedelta(hours=1)  # a visit is written down once in this time

_LIVE = (
    BrowserSessionRow.hash == bindparam("hash"),
    BrowserSessionRow.ended_at.is_(None),
    BrowserSessionRow.seen_at > bindparam("oldest"),
)
# Built once: every act of a page runs it.
_USER = (
    select(UserRow.__table__)
    .join(SessionUserRow, SessionUserRow.user_id == UserRow.id)
    .join(BrowserSessionRow, BrowserSessionRow.id == SessionUserRow.session_id)
    .where(*_LIVE, UserRow.study_id == bindparam("study"), UserRow.study_id.in_(THERE))
)


class Sessions(Transactions):
    def start_session(
        self, token_hash: str, session_hash: str, *, known: str | None = None, name: str = ""
    ) -> str | None:
        with self._write() as connection:
            token = connection.execute(
                select(TokenRow.__table__, UserRow.study_id)
                .join(UserRow, UserRow.id == TokenRow.user_id)
                .where(TokenRow.hash == token_hash, UserRow.study_id.in_(THERE))
            ).first()
            if token is None:
                return None
            _use(connection, token)
            session = live_session(connection, known) if known else None
            if session is None or _somebody_else(connection, session.id, token):
                session = new_session(connection, session_hash, name)
            add_to(connection, session.id, token.user_id)
            connection.execute(  # they have a link
                update(SessionUserRow).where(SessionUserRow.user_id == token.user_id).values(link_due=False)
            )
            terminal = session.terminal or token.terminal
            connection.execute(
                update(BrowserSessionRow)
                .where(BrowserSessionRow.id == session.id)
                .values(terminal=terminal, study_id=token.study_id, name=name or session.name)
            )
            return str(session.hash)

    def link_for_another(self, token_hash: str, session_hash: str) -> tuple[str, str] | None:
        with self._read() as connection:
            session = live_session(connection, session_hash)
            link = connection.execute(
                select(UserRow.__table__, StudyRow.name.label("study"))
                .join(StudyRow, StudyRow.id == UserRow.study_id)
                .join(TokenRow, TokenRow.user_id == UserRow.id)
                .where(TokenRow.hash == token_hash, TokenRow.expires_at > clock(connection))
            ).first()
            found = None if session is None or link is None else _signed_in_as(connection, session, link.study_id)
            if found is None or link is None or found.id == link.id:
                return None
            same = found.study_id in (None, link.study_id)
            return found.name, link.name if same and found.name != link.name else f"{link.name} in {link.study}"

    def session_user(self, session_hash: str, study_id: int) -> User | None:
        with self._read() as connection:
            row = connection.execute(_USER, {**_live_values(session_hash), "study": study_id}).first()
            return None if row is None else user_of(row)

    def browser_session(self, session_hash: str) -> BrowserSession | None:
        with self._read() as connection:
            session = live_session(connection, session_hash)
            if session is None:
                return None
            mine = (
                select(UserRow.study_id)
                .join(SessionUserRow, SessionUserRow.user_id == UserRow.id)
                .where(SessionUserRow.session_id == session.id)
            )
            query = select(StudyRow.__table__).where(StudyRow.ready).order_by(StudyRow.id)
            found = identity_of_session(connection, session.id)
            if not session.terminal:
                its = () if found is None else studies_of_identity(found)
                query = query.where(or_(StudyRow.id.in_(mine), *(StudyRow.id.in_(one) for one in its)))
            studies = tuple(study_of_row(row) for row in connection.execute(query))
            identity = None if found is None else identity_of_row(found)
            return BrowserSession(studies, session.study_id, session.terminal, identity)

    def open_in_session(self, session_hash: str, study_id: int) -> None:
        """Writes at most once an hour while the study stays the same."""
        with self._read() as connection:
            session = live_session(connection, session_hash)
        if session is None or (session.study_id == study_id and session.seen_at > now() - TOUCHED):
            return
        with self._write(prompt=True) as connection:
            connection.execute(
                update(BrowserSessionRow)
                .where(BrowserSessionRow.id == session.id)
                .values(study_id=study_id, seen_at=now())
            )

    def add_to_session(self, session_hash: str, user_id: int) -> None:
        with self._write() as connection:
            study_id = user_row(connection, user_id).study_id
            session = live_session(connection, session_hash)
            if session is None:
                raise CoplError("This browser is not signed in any more; open your sign-in link again.")
            if connection.execute(_USER, {**_live_values(session_hash), "study": study_id}).first() is None:
                add_to(connection, session.id, user_id)

    def activity(self, study_id: int, ids: Sequence[int]) -> dict[int, Activity]:
        found = dict[int, Activity]()
        seen = func.max(BrowserSessionRow.seen_at).label("seen_at")
        query = (
            select(UserRow.id, UserRow.n_preferences, seen)
            .outerjoin(SessionUserRow, SessionUserRow.user_id == UserRow.id)
            .outerjoin(BrowserSessionRow, BrowserSessionRow.id == SessionUserRow.session_id)
            .where(UserRow.study_id == study_id)
            .group_by(UserRow.id)
        )
        with self._read() as connection:
            for start in range(0, len(ids), IDS):
                for row in connection.execute(query.where(UserRow.id.in_(ids[start : start + IDS]))):
                    found[row.id] = Activity(row.n_preferences, row.seen_at)
        return found

    def set_link_due(self, session_hash: str, user_id: int, due: bool) -> None:
        with self._write() as connection:
            session = live_session(connection, session_hash)
            if session is not None:
                here = (SessionUserRow.session_id == session.id, SessionUserRow.user_id == user_id)
                connection.execute(update(SessionUserRow).where(*here).values(link_due=due))

    def link_due(self, session_hash: str, user_id: int) -> bool:
        with self._read() as connection:
            theirs = (BrowserSessionRow.hash == session_hash, SessionUserRow.user_id == user_id)
            query = select(SessionUserRow.link_due).join(
                BrowserSessionRow, BrowserSessionRow.id == SessionUserRow.session_id
            )
            return bool(connection.execute(query.where(*theirs)).scalar())

    def end_session(self, session_hash: str) -> bool:
        with self._write() as connection:
            ended = connection.execute(
                update(BrowserSessionRow)
                .where(BrowserSessionRow.hash == session_hash, BrowserSessionRow.ended_at.is_(None))
                .values(ended_at=now())
            )
            return bool(ended.rowcount)

    def browsers_of(self, user_id: int, session_hash: str, *, most: int) -> list[SignedInBrowser]:
        with self._read() as connection:
            query = _of_user(user_id).order_by(BrowserSessionRow.seen_at.desc(), BrowserSessionRow.id.desc())
            return [
                SignedInBrowser(row.id, row.name, row.created_at, row.seen_at, row.hash == session_hash)
                for row in connection.execute(query.limit(most))
            ]

    def end_session_of(self, user_id: int, session_id: int, *, by: int | None = None) -> None:
        with self._write() as connection:
            study_id = user_row(connection, user_id, lock=True).study_id
            if connection.execute(_of_user(user_id).where(BrowserSessionRow.id == session_id)).first() is None:
                raise CoplError(
                    f"No browser with number {session_id} is signed in as you, so nothing was changed; open the list "
                    "of your browsers again and take one of it."
                )
            end_sessions_of(connection, user_id, session_id)
            audit(connection, study_id, "browser signed out", by, user=user_id)

    def owner(self, study_id: int) -> User | None:
        with self._read() as connection:
            row = connection.execute(
                select(UserRow.__table__)
                .where(UserRow.study_id == study_id, UserRow.role == Role.OWNER.value, UserRow.study_id.in_(THERE))
                .order_by(UserRow.id)
                .limit(1)
            ).first()
            return None if row is None else user_of(row)


def end_sessions_of(connection: Connection, user_id: int, session_id: int | None = None) -> int:
    """Sign a user out of every browser, or of one.  One that opens all studies as their owner, or those of an account
    of this user, is signed out of all: it would let them in again.
    """
    theirs, begun = _joined_by(user_id), _begun_by(user_id)
    everywhere = or_(
        and_(BrowserSessionRow.id.in_(theirs), BrowserSessionRow.terminal), BrowserSessionRow.id.in_(begun)
    )
    ended = update(BrowserSessionRow).where(everywhere, BrowserSessionRow.ended_at.is_(None)).values(ended_at=now())
    left = delete(SessionUserRow).where(SessionUserRow.user_id == user_id)
    if session_id is not None:
        ended = ended.where(BrowserSessionRow.id == session_id)
        left = left.where(SessionUserRow.session_id == session_id)
    connection.execute(ended)
    return connection.execute(left).rowcount


def same_person(connection: Connection, user_id: int, session_hash: str) -> list[int]:
    """The users, a user first, as whom a browser of that user acts: in every study that it opens, and those as whom
    their accounts sign in.  A browser of somebody else adds nobody.
    """
    session = live_session(connection, session_hash)
    if session is None:
        return [user_id]
    account = identity_of_session(connection, session.id)
    own = [UserRow.id.in_(select(SessionUserRow.user_id).where(SessionUserRow.session_id == session.id))]
    if account is not None:
        own.append(UserRow.id.in_(select(IdentityUserRow.user_id).where(IdentityUserRow.identity_id == account.id)))
    if session.terminal:
        own.append(UserRow.id.in_(_first_owners()))
    here = select(UserRow.id).where(or_(*own), UserRow.kind != LEFT)
    if user_id not in (found := set(connection.execute(here).scalars())):
        return [user_id]
    accounts = select(IdentityUserRow.identity_id).where(IdentityUserRow.user_id.in_(found))
    found |= set(
        connection.execute(select(IdentityUserRow.user_id).where(IdentityUserRow.identity_id.in_(accounts))).scalars()
    )
    return [user_id, *sorted(found - {user_id})]


def _first_owners() -> Any:
    """The users as whom links of the terminal open the studies."""
    return select(func.min(UserRow.id)).where(UserRow.role == Role.OWNER.value).group_by(UserRow.study_id)


def end_links_of(connection: Connection, users: Sequence[int]) -> dict[int, int]:
    """Delete the sign-in links by which anybody acts as these users; returns the number of each link's user.

    Where one of them is the owner as whom a terminal's link opens a study, these links go, and their browsers.
    """
    theirs: Any = TokenRow.user_id.in_(users)
    if connection.execute(_first_owners().having(func.min(UserRow.id).in_(users))).first():
        theirs |= TokenRow.terminal
        open_ones = (BrowserSessionRow.terminal, BrowserSessionRow.ended_at.is_(None))
        connection.execute(update(BrowserSessionRow).where(*open_ones).values(ended_at=now()))
    gone = connection.execute(delete(TokenRow).where(theirs).returning(TokenRow.user_id))
    return Counter(gone.scalars())


def _joined_by(user_id: int) -> Any:
    """The sessions in which a user is signed in."""
    return select(SessionUserRow.session_id).where(SessionUserRow.user_id == user_id)


def _begun_by(user_id: int) -> Any:
    """The sessions that began with an account of a user, who may open the study with them."""
    accounts = select(IdentityUserRow.identity_id).where(IdentityUserRow.user_id == user_id)
    return select(IdentitySessionRow.session_id).where(IdentitySessionRow.identity_id.in_(accounts))


def _of_user(user_id: int) -> Any:
    """The live sessions that let a user act: those that ``end_sessions_of`` ends."""
    return select(BrowserSessionRow.__table__).where(
        BrowserSessionRow.id.in_(union(_joined_by(user_id), _begun_by(user_id))),
        BrowserSessionRow.ended_at.is_(None),
        BrowserSessionRow.seen_at > now() - KEPT,
    )


def shut_out(connection: Connection, study_id: int, email: str) -> None:
    """End the browsers, links, invites and tokens of everybody whom a refused address concerns, and keep their accounts
    out.

    Raises:
        CoplError: no owner of the study could sign in any more.
    """
    mark_refused(connection, study_id, email)
    accounts = select(IdentityUserRow.user_id).where(IdentityUserRow.study_id == study_id)
    rules = select(EmailRow.user_id).where(EmailRow.study_id == study_id, EmailRow.user_id.is_not(None))
    with_account = accounts.where(IdentityUserRow.refused == email)
    concerned = or_(UserRow.id.in_(with_account), UserRow.id.in_(rules.where(EmailRow.email == email)))
    out = or_(
        UserRow.id.in_(accounts.where(IdentityUserRow.refused.is_not(None))),
        UserRow.id.in_(rules.where(EmailRow.role.is_(None))),
    )
    owners = select(UserRow.id).where(UserRow.study_id == study_id, UserRow.role == Role.OWNER.value)
    if connection.execute(owners.where(concerned)).first() and not connection.execute(owners.where(~out)).first():
        raise CoplError(f"{email} is an address of the only owner of the study; make somebody else an owner first.")
    for user_id in list(connection.execute(select(UserRow.id).where(concerned)).scalars()):
        end_sessions_of(connection, user_id)
        connection.execute(delete(TokenRow).where(TokenRow.user_id == user_id))
        end_made_by(connection, user_id)


def end_made_by(connection: Connection, user_id: int) -> None:
    """End the invites and the tokens of programs that a user made: they would still let them in."""
    for made in (InviteRow, ServiceTokenRow):
        open_ones = (made.user_id == user_id, made.revoked_at.is_(None))
        connection.execute(update(made).where(*open_ones).values(revoked_at=now()))


def bind_session(connection: Connection, session_hash: str | None, user: User, study_id: int) -> None:
    """Make a new user that of the account with which their browser's session began, if it did."""
    session = live_session(connection, session_hash) if session_hash else None
    identity = None if session is None else identity_of_session(connection, session.id)
    if identity is None:
        return
    if bound(connection, identity.id, study_id) is not None or refused(connection, study_id, identity, user.id):
        raise CoplError("This account is in this study already, or may not join it; ask an owner of the study.")
    bind(connection, identity.id, study_id, user.id)


def _live_values(session_hash: str) -> dict[str, object]:
    return {"hash": session_hash, "oldest": now() - KEPT}


def live_session(connection: Connection, session_hash: str) -> AnyRow | None:
    return connection.execute(select(BrowserSessionRow.__table__).where(*_LIVE), _live_values(session_hash)).first()


def new_session(connection: Connection, session_hash: str, name: str) -> AnyRow:
    made = insert(BrowserSessionRow).values(hash=session_hash, name=name, created_at=now(), seen_at=now())
    return connection.execute(made.returning(*BrowserSessionRow.__table__.c)).one()


def _signed_in_as(connection: Connection, session: AnyRow, study_id: int) -> AnyRow | None:
    """Who a session is: in a study, else in another one (the last one first), else its account (without ids)."""
    account = identity_of_session(connection, session.id)
    here = UserRow.id.in_(select(SessionUserRow.user_id).where(SessionUserRow.session_id == session.id))
    mine: Any = here
    if account is not None:
        mine |= UserRow.id.in_(select(IdentityUserRow.user_id).where(IdentityUserRow.identity_id == account.id))
    query = select(UserRow.id, UserRow.study_id, UserRow.name)
    if session.terminal:  # it opens every study as its first owner
        owners = (UserRow.study_id == study_id, UserRow.role == Role.OWNER.value)
        mine |= UserRow.id.in_(select(UserRow.id).where(*owners).order_by(UserRow.id).limit(1))
    order = (UserRow.study_id != study_id, not_(here), UserRow.study_id != session.study_id, UserRow.id)
    found = connection.execute(query.where(mine).order_by(*order).limit(1)).first()
    if found is not None or account is None:
        return found
    name = account.name or account.email or "somebody without a name"
    return connection.execute(select(null().label("id"), null().label("study_id"), literal(name).label("name"))).one()


def _use(connection: Connection, token: AnyRow) -> None:
    """Refuse a link whose time is over, and move the end of one that its user keeps.

    One that was made while the clock was ahead lasts from its first use as long as it would have from then.

    Raises:
        LinkExpired: its time is over.
    """
    at = clock(connection)
    if token.expires_at <= at:
        raise LinkExpired("This sign-in link has expired, so nobody was signed in; ask for a new one.")
    if token.own or token.created_at > at:
        lasts = KEPT if token.own else token.expires_at - token.created_at
        values = {"created_at": min(token.created_at, at), "expires_at": at + lasts}
        connection.execute(update(TokenRow).where(TokenRow.id == token.id).values(values))


def _somebody_else(connection: Connection, session_id: int, token: AnyRow) -> bool:
    """Whether the session has another user in the study of the token: open tabs keep acting as that user."""
    query = (
        select(UserRow.id)
        .join(SessionUserRow, SessionUserRow.user_id == UserRow.id)
        .where(SessionUserRow.session_id == session_id, UserRow.study_id == token.study_id, UserRow.id != token.user_id)
    )
    return connection.execute(query).first() is not None


def add_to(connection: Connection, session_id: int, user_id: int) -> None:
    row = {"session_id": session_id, "user_id": user_id}
    known = select(SessionUserRow.user_id).filter_by(**row)
    if connection.execute(known).first() is None:
        connection.execute(insert(SessionUserRow).values(row))
