"""Studies, their users and the audit trail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, cast, func, insert, or_, select, update

from copl_core.records import LEFT, AuditEntry, CoplError, Kind, Right, Role, StudyRecord, User
from copl_core.study_settings import AssignmentSettings
from db.base import AnyRow
from db.models import AuditRow, StudyRow, UserRow
from db.pace import Pace
from db.quarantine import COUNTED, LEFT_OUT, change_training, decision, end_for_owner
from db.rights import Rights
from db.study_parts import drop_some
from db.texts import IDS
from db.transactions import (
    APART,
    THERE,
    audit,
    bump_revision,
    locked_user,
    now,
    only_visible,
    plain_rows,
    study_row,
    user_of,
    user_row,
)
from db.unfinished import is_hidden

NAME_LENGTH = 200
_SPREAD, _WHOLE = 2_654_435_769, 2**32  # multiples of the first, modulo the second, are evenly spread (Knuth, 6.4)
# Built once: every act of a page runs it.
_MEMBER = select(UserRow.__table__).where(
    UserRow.id == bindparam("user"),
    UserRow.study_id == bindparam("study"),
    UserRow.kind != LEFT,
    UserRow.study_id.in_(THERE),
)


class Members(Rights):
    # ---- studies
    def studies(self) -> list[StudyRecord]:
        with self._read() as connection:
            query = select(StudyRow.__table__).where(StudyRow.ready).order_by(StudyRow.id)
            return [study_of_row(row) for row in connection.execute(query)]

    def study(self, study_id: int) -> StudyRecord:
        with self._read() as connection:
            return study_of_row(study_row(connection, study_id))

    def create_study(
        self, name: str, *, demo: bool = False, new: bool = False, open: bool = True, ready: bool = True
    ) -> StudyRecord:
        name = checked_name(name, "study")
        with self._write() as connection:
            found = connection.execute(select(StudyRow.__table__).where(StudyRow.name == name)).first()
            if found is not None and new:
                raise CoplError(f"There is a study with the name {name!r} already; choose another name.")
            if found is None:
                saved = None if open else AssignmentSettings(open=False).saved()
                row = {"name": name, "demo": demo, "ready": ready, "assignment": saved, "created_at": now()}
                study_id = connection.execute(insert(StudyRow).values(row).returning(StudyRow.id)).scalar_one()
                if ready:
                    _make_first(connection, study_id)
                found = study_row(connection, study_id)
            return study_of_row(found)

    def finish_study(self, study_id: int) -> None:
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(ready=True))
            _make_first(connection, study_id)

    def drop_unfinished(self, study_id: int | None = None) -> list[int]:
        """In short transactions: others label in other studies."""
        query = select(StudyRow.id).where(StudyRow.ready.is_(False), StudyRow.deletion.is_(None))
        with self._read() as connection:
            query = query if study_id is None else query.where(StudyRow.id == study_id)
            studies = list(connection.execute(query).scalars())
        for one in studies:
            pace, gone = Pace(fewest=50), False
            while not gone:
                with self._write_some(pace, unreferred=True) as connection:
                    gone = drop_some(connection, one, pace.n)
        return studies

    def current_study(self) -> StudyRecord | None:
        with self._read() as connection:
            query = select(StudyRow.__table__).where(StudyRow.ready).order_by(StudyRow.opened_seq.desc()).limit(1)
            row = connection.execute(query).first()
            return None if row is None else study_of_row(row)

    def make_current(self, study_id: int) -> None:
        with self._write() as connection:
            study_row(connection, study_id)
            _make_current(connection, study_id)

    def include_simulated(self, study_id: int, include: bool, *, by: int | None = None) -> None:
        self._include(study_id, StudyRow.include_simulated, Kind.SIMULATED, include, by)

    def include_models(self, study_id: int, include: bool, *, by: int | None = None) -> None:
        self._include(study_id, StudyRow.include_models, Kind.MODEL, include, by)

    def _include(self, study_id: int, switch: Any, kind: Kind, include: bool, by: int | None) -> None:
        with self._write() as connection:
            if getattr(study_row(connection, study_id, lock=True), switch.key) == include:
                return
            connection.execute(update(StudyRow).where(StudyRow.id == study_id).values({switch: include}))
            # Each label of such a user counts as changed; at least one, so that the trainer always notices.
            of_kind = (UserRow.study_id == study_id, UserRow.kind == kind.value, APART)
            labels = select(func.coalesce(func.sum(UserRow.n_preferences), 0)).where(*of_kind)
            changes = int(connection.execute(labels).scalar_one())
            bump_revision(connection, study_id, max(1, changes))
            event = {Kind.SIMULATED: "simulated", Kind.MODEL: "models"}[kind]
            audit(connection, study_id, event, by, include=include, labels=changes)

    # ---- users
    def user_counts(self, study_id: int) -> dict[Kind, int]:
        with self._read() as connection:
            query = select(UserRow.kind, func.count()).where(UserRow.study_id == study_id, UserRow.kind != LEFT)
            query = query.group_by(UserRow.kind)
            rows = connection.execute(only_visible(query, study_row(connection, study_id), UserRow.id))
            return {Kind(kind): n for kind, n in rows}

    def users(self, study_id: int, *, ids: Sequence[int] | None = None, most: int | None = None) -> list[User]:
        with self._read() as connection:
            query = only_visible(_shown(study_id), study_row(connection, study_id), UserRow.id).order_by(UserRow.id)
            if ids is None:
                return [user_of(row) for row in connection.execute(query if most is None else query.limit(most))]
            wanted, found = sorted({int(one) for one in ids}), list[AnyRow]()
            for start in range(0, len(wanted), IDS):
                found += connection.execute(query.where(UserRow.id.in_(wanted[start : start + IDS]))).all()
            return [user_of(row) for row in found]

    def find_users(self, study_id: int, part: str, most: int) -> list[User]:
        if "\0" in part:  # as in ``user_named``
            return []
        with self._read() as connection:
            query = only_visible(_shown(study_id), study_row(connection, study_id), UserRow.id)
            query = query.where(UserRow.name.icontains(part, autoescape=True)) if part else query
            order = (func.length(UserRow.name), UserRow.name) if part else (UserRow.id,)
            return [user_of(row) for row in connection.execute(query.order_by(*order).limit(most))]

    def users_of_kind(self, study_id: int, kind: Kind) -> list[int]:
        query = select(UserRow.id).where(UserRow.study_id == study_id, UserRow.kind == kind.value)
        query = query if kind == Kind.HUMAN else query.where(APART)
        with self._read() as connection:
            return [row[0] for row in plain_rows(connection, query.order_by(UserRow.id))]

    def left_out(self, study_id: int) -> list[int]:
        out = or_(UserRow.excluded, UserRow.quarantined)
        query = select(UserRow.id).where(UserRow.study_id == study_id, UserRow.kind != LEFT, out, APART)
        with self._read() as connection:
            return [row[0] for row in plain_rows(connection, query.order_by(UserRow.id))]

    def some_users(self, study_id: int, share: float) -> list[int]:
        drawn = cast(UserRow.id, BigInteger) * _SPREAD % _WHOLE < int(share * _WHOLE)
        query = _answered(study_id).where(drawn).order_by(UserRow.id)
        with self._read() as connection:
            query = only_visible(query, study_row(connection, study_id), UserRow.id)
            return [row[0] for row in plain_rows(connection, query)]

    def user(self, user_id: int) -> User:
        with self._read() as connection:
            return user_of(user_row(connection, user_id))

    def member(self, study_id: int, user_id: int) -> User | None:
        with self._read() as connection:
            row = connection.execute(_MEMBER, {"user": user_id, "study": study_id}).first()
            return None if row is None else user_of(row)

    def user_named(self, study_id: int, name: str) -> User | None:
        if "\0" in name or len(name) > NAME_LENGTH:  # no user has such a name, and PostgreSQL refuses to look
            return None
        with self._read() as connection:
            study = study_row(connection, study_id)
            query = select(UserRow.__table__).where(UserRow.study_id == study_id, UserRow.name == name)
            query = query.where(UserRow.kind != LEFT)
            row = connection.execute(only_visible(query, study, UserRow.id)).first()
            return None if row is None else user_of(row)

    def create_user(
        self,
        study_id: int,
        name: str,
        *,
        kind: Kind = Kind.HUMAN,
        role: Role = Role.ANNOTATOR,
        true_group: str | None = None,
    ) -> User:
        name = checked_name(name, "user")
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            named = select(UserRow.__table__).where(UserRow.study_id == study_id, UserRow.name == name)
            if connection.execute(named).first() is None:
                connection.execute(
                    insert(UserRow).values(
                        study_id=study_id,
                        name=name,
                        kind=kind.value,
                        role=role.value,
                        true_group=true_group,
                        created_at=now(),
                    )
                )
            user = connection.execute(named).one()
            if is_hidden(connection, user):
                raise CoplError(self._hidden(user.name))
            return user_of(user)

    def _hidden(self, name: str) -> str:
        with self.hold(Right.IMPORT) as held:
            if not held:
                return f"{name} is in a file that is being imported now; try again when that has ended."
        return (
            f"{name} is in a file whose import broke off; the trainer removes what is left of it, so try again in a "
            "few minutes, or choose another name."
        )

    def set_role(self, user_id: int, role: Role, *, by: int | None = None) -> User:
        with self._write() as connection:
            study_row(connection, user_row(connection, user_id).study_id, lock=True)
            change_role(connection, user_row(connection, user_id, lock=True), role, by)
            return user_of(user_row(connection, user_id))

    def exclude(self, user_id: int, excluded: bool, *, by: int | None = None) -> User:
        """Each label of the user counts as changed, unless they are left out already."""
        with self._write() as connection:
            study, user = locked_user(connection, user_id)
            if user.excluded == excluded:
                return user_of(user)
            decided = decision(user, LEFT_OUT if excluded else COUNTED) if user.quarantine else {}
            changes = change_training(connection, study, user_id, excluded=excluded, **decided)
            audit(connection, study.id, "exclude", by, user=user_id, excluded=excluded, labels=changes)
            return user_of(user_row(connection, user_id))

    def audit(self, study_id: int, *, limit: int = 100) -> list[AuditEntry]:
        with self._read() as connection:
            rows = connection.execute(
                select(AuditRow.user_id, AuditRow.event, AuditRow.detail, AuditRow.at)
                .where(AuditRow.study_id == study_id)
                .order_by(AuditRow.id.desc())
                .limit(limit)
            )
            return [AuditEntry(*row) for row in rows]


def _shown(study_id: int) -> Any:
    return select(UserRow.__table__).where(UserRow.study_id == study_id, UserRow.kind != LEFT)


def _answered(study_id: int) -> Any:
    """A query of the ids of the users of whom an answer counts."""
    return select(UserRow.id).where(UserRow.study_id == study_id, UserRow.n_preferences + UserRow.n_checks > 0)


def checked_name(name: str, whose: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= NAME_LENGTH:
        raise CoplError(f"The name of a {whose} has {len(name)} characters; give it 1 to {NAME_LENGTH}.")
    return name


def _make_first(connection: Connection, study_id: int) -> None:
    """Make a study current where none is."""
    query = select(StudyRow.id).where(StudyRow.ready, StudyRow.opened_seq > 0).limit(1)
    if connection.execute(query).first() is None:
        _make_current(connection, study_id)


def _make_current(connection: Connection, study_id: int) -> None:
    newest = select(func.coalesce(func.max(StudyRow.opened_seq), 0) + 1).scalar_subquery()
    connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(opened_seq=newest))


def study_of_row(row: AnyRow) -> StudyRecord:
    return StudyRecord(
        row.id,
        row.name,
        row.include_simulated,
        row.champion,
        row.revision,
        row.demo,
        row.include_models,
        row.forgotten,
        row.created_at,
    )


def change_role(connection: Connection, user: AnyRow, role: Role, by: int | None) -> None:
    """A study keeps one owner at least, who can invite others, and owners never wait for a decision of owners.

    The caller has locked the rows of the study and the user.
    """
    if user.role == role.value:
        return
    if user.role == Role.OWNER.value:
        others = connection.execute(
            select(func.count()).where(
                UserRow.study_id == user.study_id, UserRow.role == Role.OWNER.value, UserRow.id != user.id
            )
        ).scalar_one()
        if not others:
            raise CoplError(f"{user.name} is the only owner of the study; make somebody else an owner first.")
    connection.execute(update(UserRow).where(UserRow.id == user.id).values(role=role.value))
    audit(connection, user.study_id, "role", by, user=user.id, before=user.role, after=role.value)
    if role == Role.OWNER:
        end_for_owner(connection, user, by)
