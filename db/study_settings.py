"""Settings of a study: how pairs are handed out, guidelines, gold pairs; and the problems that users report."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from copl_core.records import CoplError
from copl_core.study_settings import AssignmentSettings, GoldPair, Guidelines, Report
from db.base import AnyResult, AnyRow
from db.models import PairRow, PromptRow, ResponseRow, StudyRow
from db.overlap import assignment_of, recount
from db.recounts import Recounts
from db.study_models import GuidelineRow, ReportRow
from db.transactions import audit, now, pair_row, study_row, user_row
from db.unfinished import note_recount

GUIDELINES_LENGTH, REPORT_LENGTH = 100_000, 2_000
_REPORT = (
    ReportRow.id,
    ReportRow.user_id,
    ReportRow.response_id,
    ReportRow.text,
    ReportRow.created_at,
    ReportRow.resolved_at,
    ReportRow.resolved_by,
)


class StudySettings(Recounts):
    def assignment_settings(self, study_id: int) -> AssignmentSettings:
        with self._read() as connection:
            return assignment_of(study_row(connection, study_id))

    def set_assignment(self, study_id: int, settings: AssignmentSettings, *, by: int | None = None) -> None:
        with self._write() as connection:
            old = assignment_of(study_row(connection, study_id, lock=True))
            if settings == old:
                return
            connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(assignment=settings.saved()))
            uncounted = old.overlap is None and settings.overlap is not None
            if uncounted:
                note_recount(connection, study_id)
            before, after = old.saved(), settings.saved()
            changed = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
            audit(connection, study_id, "room", by, **changed)  # the stored name of this event
        if uncounted:  # until that is done, a pair that is full already is refused as it is handed out
            self._recount(study_id, self._pairs_of(study_id))

    # ---- names of groups
    def group_names(self, study_id: int) -> dict[int, str]:
        with self._read() as connection:
            return _group_names(study_row(connection, study_id))

    def rename_group(self, study_id: int, group: int, name: str, *, by: int | None = None) -> None:
        with self._write() as connection:
            names = _group_names(study_row(connection, study_id, lock=True))
            before = names.pop(group, "")
            if name == before:
                return
            names |= {group: name} if name else {}
            stored = {str(number): own for number, own in sorted(names.items())}
            connection.execute(update(StudyRow).where(StudyRow.id == study_id).values(group_names=stored or None))
            audit(connection, study_id, "group name", by, group=group + 1, before=before, after=name)

    # ---- guidelines
    def guidelines(self, study_id: int) -> list[Guidelines]:
        with self._read() as connection:
            study_row(connection, study_id)
            rows = connection.execute(
                select(GuidelineRow.version, GuidelineRow.text, GuidelineRow.user_id, GuidelineRow.created_at)
                .where(GuidelineRow.study_id == study_id)
                .order_by(GuidelineRow.version.desc())
            )
            return [Guidelines(*row) for row in rows]

    def write_guidelines(self, study_id: int, text: str, *, by: int | None = None) -> int:
        if len(text) > GUIDELINES_LENGTH:
            raise CoplError(
                f"The guidelines have {len(text):,} characters; {GUIDELINES_LENGTH:,} are kept; shorten them."
            )
        with self._write() as connection:
            study_row(connection, study_id, lock=True)
            newest = connection.execute(
                select(GuidelineRow.version, GuidelineRow.text)
                .where(GuidelineRow.study_id == study_id)
                .order_by(GuidelineRow.version.desc())
                .limit(1)
            ).first()
            if (newest.text if newest else "") == text:
                return newest.version if newest else 0
            version = newest.version + 1 if newest else 1
            connection.execute(
                insert(GuidelineRow).values(study_id=study_id, version=version, text=text, user_id=by, created_at=now())
            )
            audit(connection, study_id, "guidelines", by, version=version)
            return version

    # ---- gold pairs
    def set_gold(self, study_id: int, pair_id: int, preferred_id: int | None, *, by: int | None = None) -> None:
        with self._write() as connection:
            study = study_row(connection, study_id, lock=True)
            pair = pair_row(connection, study_id, pair_id)
            if preferred_id not in (None, pair.first_id, pair.second_id):
                raise CoplError(
                    f"Response {preferred_id} is not in pair {pair_id}; its responses are {pair.first_id} "
                    f"and {pair.second_id}."
                )
            if preferred_id == pair.gold_id:
                return
            connection.execute(update(PairRow).where(PairRow.id == pair_id).values(gold_id=preferred_id))
            recount(connection, assignment_of(study), pair_id)
            audit(connection, study.id, "gold", by, pair=pair_id, before=pair.gold_id, after=preferred_id)

    def gold(self, study_id: int) -> list[GoldPair]:
        with self._read() as connection:
            rows: AnyResult = connection.execute(
                select(PairRow.id, PairRow.first_id, PairRow.second_id, PairRow.gold_id)
                .where(PairRow.study_id == study_id, PairRow.gold_id.is_not(None))
                .order_by(PairRow.id)
            )
            return [GoldPair(*row) for row in rows]

    def gold_of(self, pair_id: int) -> int | None:
        with self._read() as connection:
            return connection.execute(select(PairRow.gold_id).where(PairRow.id == pair_id)).scalar()

    # ---- reported problems
    def report(self, user_id: int, response_id: int, text: str) -> Report:
        text = text.strip()
        if not 1 <= len(text) <= REPORT_LENGTH:
            raise CoplError(f"The report has {len(text):,} characters; write 1 to {REPORT_LENGTH:,}.")
        with self._write() as connection:
            study_id = user_row(connection, user_id).study_id
            known = connection.execute(
                select(ResponseRow.id)
                .join(PromptRow, PromptRow.id == ResponseRow.prompt_id)
                .where(ResponseRow.id == response_id, PromptRow.study_id == study_id)
            ).first()
            if known is None:
                raise CoplError(f"Response {response_id} is not in this study; report one that was shown to you.")
            report_id = connection.execute(
                insert(ReportRow)
                .values(
                    study_id=study_id,
                    user_id=user_id,
                    response_id=response_id,
                    text=text,
                    created_at=now(),
                )
                .returning(ReportRow.id)
            ).scalar_one()
            return Report(*_report(connection, report_id))

    def reports(self, study_id: int, *, resolved: bool = False) -> list[Report]:
        with self._read() as connection:
            study_row(connection, study_id)
            query = select(*_REPORT).where(ReportRow.study_id == study_id)
            query = query if resolved else query.where(ReportRow.resolved_at.is_(None))
            return [Report(*row) for row in connection.execute(query.order_by(ReportRow.id.desc()))]

    def resolve(self, study_id: int, report_id: int, *, by: int | None = None) -> Report:
        with self._write() as connection:
            known = connection.execute(
                select(ReportRow.id).where(ReportRow.id == report_id, ReportRow.study_id == study_id)
            ).first()
            if known is None:
                raise CoplError(f"There is no report with id {report_id} in this study; take one of its reports.")
            done = connection.execute(
                update(ReportRow)
                .where(ReportRow.id == report_id, ReportRow.resolved_at.is_(None))
                .values(resolved_at=now(), resolved_by=by)
            ).rowcount
            if done:
                audit(connection, study_id, "report resolved", by, report=report_id)
            return Report(*_report(connection, report_id))


def _report(connection: Connection, report_id: int) -> AnyRow:
    return connection.execute(select(*_REPORT).where(ReportRow.id == report_id)).one()


def _group_names(study: AnyRow) -> dict[int, str]:
    return {int(number): name for number, name in (study.group_names or {}).items()}
