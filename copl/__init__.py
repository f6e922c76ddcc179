"""CoPL Studio from Python: open a study, import rows, fit, ask for rewards, export labels and models.

    import copl

    with copl.open_study("Tone", home="var", create=True) as study:
        copl.import_rows(study, "labels.jsonl")
        copl.fit(study)
        view = copl.reward(study, "How do I keep basil alive?", ["Water it.", "Well, first…"], user="ann")
        copl.export(study, "labels.parquet", format="parquet")
        copl.export_model(study, "ann", user="ann")

These are the verbs of the pages and of the terminal, on the same database: what is imported here appears there.  Every
error that a user can do something about is a ``CoplError``, whose text is one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from copl_core.__main__ import find_study, need_device, open_store
from copl_core.config import Settings
from copl_core.formats.exports import ExportReport
from copl_core.formats.files import open_file, open_rows, read_options
from copl_core.formats.selection import Selection
from copl_core.records import CoplError, SnapshotRecord
from copl_core.serving.bodies import BadRequest, reward_request
from copl_core.serving.service import Service
from copl_core.store import Store
from copl_core.study import access, contents, exports, model_export, runs
from copl_core.study.contents import Imported
from copl_core.study.model_export import ExportedModel
from copl_core.study.session import Session
from copl_core.study.views import RewardView, ScoreRow

__all__ = [
    "CoplError",
    "ExportReport",
    "ExportedModel",
    "Imported",
    "RewardView",
    "ScoreRow",
    "Selection",
    "SnapshotRecord",
    "Study",
    "export",
    "export_model",
    "fit",
    "import_rows",
    "open_study",
    "reward",
]


class Study:
    """An open study; ``open_study`` makes it.  Close it when done, or use it in a ``with`` statement.

    Attributes:
        name: of the study.
        settings: of the installation that holds it.
    """

    def __init__(self, session: Session) -> None:
        self.name, self.settings, self._id = session.record.name, session.settings, session.id
        self._service: Service | None = Service(session.store, session.settings)

    def __repr__(self) -> str:
        return f"<study {self.name!r} in {self.settings.home}{' (closed)' if self._service is None else ''}>"

    def close(self) -> None:
        """Give back the connections to the database and the models in memory; a second time does nothing."""
        service, self._service = self._service, None
        if service is not None:
            service.store.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_study(name: str | None = None, *, home: str | Path | None = None, create: bool = False) -> Study:
    """Open a study of an installation.

    Args:
        name: of the study; None: the one that people without a link see.
        home: folder of the installation; None: that of ``COPL_HOME``, else ``var``.  All other settings come from the
            ``COPL_*`` variables.
        create: make an empty study, by invitation only, if there is none of that name.

    Raises:
        CoplError: there is no such study, or the database cannot be opened.
    """
    settings = Settings.from_environment()
    if home is not None:
        settings = replace(settings, home=Path(home).expanduser())
    if create and not (name or "").strip():
        raise CoplError("A new study needs a name; give one: copl.open_study('Tone', create=True).")
    name = None if name is None else name.strip()
    store = open_store(settings)
    try:
        if create and name is not None:
            _create(store, settings, name)
        return Study(find_study(store, settings, name))
    except BaseException:
        store.close()
        raise


def import_rows(
    study: Study,
    rows: str | Path | Iterable[Mapping[str, Any]],
    *,
    format: str | None = None,
    map: Mapping[str, str] | None = None,
    annotator: str | None = None,
    dry_run: bool = False,
) -> Imported:
    """Import pairs and labels; rows that the study has already are skipped.

    Args:
        rows: a file of any format that the terminal takes, or rows themselves, such as ``{"prompt": …, "response_a": …,
            "response_b": …, "annotator": …, "choice": "a"}``; rows of other tools are recognised too.  A
            pandas table has them as ``table.to_dict("records")``.
        format: its name, if it is not recognised.
        map: the file's name of a field of ours, or its value for a choice: ``{"choice": "winner", "a": "0"}``.
        annotator: whose labels they are, where rows do not say it.
        dry_run: count what would come in, and change nothing.

    Raises:
        CoplError: the rows cannot be taken; nothing has changed.
    """
    session = _session(study)
    options = read_options((f"{ours}={theirs}" for ours, theirs in (map or {}).items()), annotator)
    if isinstance(rows, (str, Path)):
        opened = open_file(Path(rows), options, format)
    else:
        opened = open_rows(rows, options, format)
    if dry_run:
        (report,) = session.store.try_import(session.id, [opened.rows()])
        return Imported.of(opened, report)
    file = opened.path if isinstance(rows, (str, Path)) else None
    return Imported.of(opened, contents.import_rows(session, opened.rows(), file=file))


def fit(study: Study, *, graph_only: bool = False) -> SnapshotRecord:
    """Fit the study in this process and publish the snapshot, from which rewards and maps come from then on.

    Args:
        graph_only: fit the preference graph and keep the present text reward: seconds instead of minutes.

    Returns:
        The new champion: its ``version``, its number of labels ``n_labels``, and ``metrics``, such as
        ``metrics["graph"]["accuracy"]`` on held-out labels.

    Raises:
        CoplError: there are too few labels, weights are missing (``copl weights`` fetches them), a trainer works in the
            installation, or the run failed; the champion stays.
    """
    session = _session(study)
    need_device(study.settings)
    return runs.fit_now(session, "graph" if graph_only else "full", reason="requested from Python")


def reward(
    study: Study,
    prompt: str | Sequence[Mapping[str, str]],
    responses: Sequence[str],
    *,
    user: str | int | None = None,
    group: str | int | None = None,
    labels: Sequence[Mapping[str, str]] = (),
) -> RewardView:
    """The rewards of T responses, as the reward page and the reward server give them.

    Args:
        prompt: a text, or messages, each with ``role`` and ``content``.
        user: name or id of a person, who is placed by all their present labels.
        group: name of a group, or its number on the pages, from 1.
        labels: what is known of somebody who is not stored, each with ``prompt``, ``preferred`` and ``rejected``.
            At most one of user, group and labels; without them, every group.

    Returns:
        ``rows``, one per person or group; each with ``reward`` (T,), log-odds with mean zero over the responses,
        ``win`` (T,), probabilities that sum to 1, and their interval ``low`` and ``high`` (T,).

    Raises:
        CoplError: a text is empty or given twice, there is no such user or group, or no snapshot yet.
    """
    body: dict[str, Any] = {"responses": _listed(responses), "user": user, "group": group}
    body |= {"messages": _listed(prompt)} if isinstance(prompt, (list, tuple)) else {"prompt": prompt}
    body |= {"labels": _listed(labels)} if labels else {}
    try:
        return _service(study).view(study._id, reward_request(body))
    except BadRequest as problem:
        raise CoplError(str(problem)) from None


def export(
    study: Study,
    out: str | Path,
    *,
    format: str = "own",
    users: Sequence[str] = (),
    group: str | None = None,
    pseudonyms: bool = False,
    selection: Selection | None = None,
) -> ExportReport:
    """Write labels for this and other tools.

    Args:
        out: file to write; of the format "hf" a new folder.
        format: own, csv, parquet, trl, trl-implicit, hf, battles or argilla.
        users: names of people; without users and group, everybody.
        group: name of a group, or its number on the pages.
        pseudonyms: name nobody: people are "person-17", and reasons and other fields of imported files are left out.
        selection: which labels: ties, smallest margin and agreement, fewest people, diverse pairs, shares of people.

    Raises:
        CoplError: there is no such format, user or group, or the file cannot be written.
    """
    return exports.export_to(_session(study), format, Path(out), selection, exports.Whose(users, group, pseudonyms))


def export_model(
    study: Study, out: str | Path, *, user: str | None = None, group: str | None = None, small_group: bool = False
) -> ExportedModel:
    """Write a text reward as a folder that ``AutoModelForSequenceClassification.from_pretrained`` loads.

    Args:
        out: new folder.
        user: name of the person whose reward it is; with neither user nor group, everybody's mean.
        group: name of a group, or its number on the pages.
        small_group: also of a group of fewer than five people, whose model tells what each of them prefers.

    Raises:
        CoplError: there is no snapshot with a text reward, no such user or group, or a group of too few, or the folder
            exists.
    """
    return model_export.export_model(_session(study), Path(out), user=user, group=group, small_group=small_group)


def _listed(values: Any) -> Any:
    """A list of plain values, as JSON has them; what is no collection stays as it is, and is refused later."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return values
    return [dict(one) if isinstance(one, Mapping) else one for one in values]


def _service(study: Study) -> Service:
    if study._service is None:
        raise CoplError(f"The study {study.name!r} is closed; open it again with copl.open_study({study.name!r}).")
    return study._service


def _session(study: Study) -> Session:
    return _service(study).session(study._id)


def _create(store: Store, settings: Settings, name: str) -> None:
    """Make an empty study unless there is one of that name."""
    if name in {study.name for study in store.studies()}:
        return
    contents.drop_unfinished(store, settings)  # what a killed import has left may have that name
    record = store.create_study(name, new=True, open=False)
    access.owner(Session(store, settings, record.id))
