"""The verbs of a study from a terminal: ``python -m copl_core VERB``.  One of the two places that join all parts."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from itertools import chain, count
from pathlib import Path

from copl_core.config import Settings
from copl_core.records import CoplError, ImportReport, Role, User
from copl_core.study import access, contents, rewards, runs
from copl_core.study.session import Session

_SHOWN_PROBLEMS = 20


def main(argv: list[str] | None = None) -> int:
    """Run one verb; a mishap is one sentence on standard error and exit status 1."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(arguments, Settings.from_environment())
    except CoplError as problem:
        print(f"copl: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        return 0


def open_store(settings: Settings):
    """The store of this installation, its database created and brought to the newest form."""
    from db.engine import make_engine, migrate
    from db.store import SqlStore

    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CoplError(
            f"The folder {settings.home} cannot be made ({problem.strerror}); "
            "choose a writable one with COPL_HOME=/some/folder."
        ) from problem
    engine = make_engine(settings.url)
    migrate(engine)
    return SqlStore(engine)


def open_study(settings: Settings, name: str | None = None, *, create: bool = False) -> Session:
    """A study by name, or the current one.

    Raises:
        CoplError: there is no such study.
    """
    store = open_store(settings)
    if name is None:
        record = store.current_study()
    else:
        record = next((study for study in store.studies() if study.name == name), None)
    if record is None and create:
        record = store.create_study(name or "Study")
    if record is None:
        names = ", ".join(repr(study.name) for study in store.studies()) or "none"
        wanted = "no study" if name is None else f"no study named {name!r}"
        raise CoplError(f"There is {wanted} in {settings.home} (there: {names}); import a file to make one.")
    return Session(store, settings, record.id)


def prepare(settings: Settings) -> str:
    """Make the installation ready to open: database, demo study if it is empty, and an owner.

    Returns:
        The path, with its secret, that signs the owner in.
    """
    store = open_store(settings)
    if store.current_study() is None:
        seed_demo(store, settings)
    session = Session(store, settings, store.current_study().id)
    return f"/?token={access.sign_in_token(session, _owner(session).id)}"


def _owner(session: Session) -> User:
    """The study's owner, made if there is none; never somebody of another role who happens to be called Owner."""
    users = access.users(session)
    owner = next((user for user in users if user.role == Role.OWNER), None)
    names = {user.name for user in users}
    free = next(name for name in chain(["Owner"], (f"Owner {n}" for n in count(2))) if name not in names)
    return owner or access.join(session, free, Role.OWNER)


def seed_demo(store, settings: Settings) -> Session:
    """The study that a first start opens with: real texts, simulated users."""
    from copl_core.demo.world import demo_rows

    record = store.create_study("Demo: what makes a good answer?", demo=True)
    session = Session(store, settings, record.id)
    contents.import_rows(session, demo_rows(seed=0))
    return session


def need_device(settings: Settings) -> None:
    """Refuse a device that this machine lacks before a run is queued for it.

    Raises:
        CoplError: torch finds no such device.
    """
    if settings.device == "cpu":
        return
    import torch

    kind, _, number = settings.device.partition(":")
    found = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= found:
        raise CoplError(
            f"COPL_DEVICE is {settings.device!r}, and torch finds {found or 'no'} {kind} "
            f"device{'s' * (found != 1)} here; set it to cpu, or install a torch that serves it."
        )


# ---- verbs


def _import(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.formats.own import BROKEN, read_rows

    opened = []
    for path in arguments.files:
        problems: list[tuple[int, str]] = []
        rows = read_rows(path, problems)
        first = next(rows, None)
        if first is None:
            _tell_problems(problems, "none was taken")
            raise CoplError(
                f"{path} has no line that can be taken, so nothing was imported; a line is a JSON object "
                "with prompt, response_a, response_b and, where it is a label, choice and annotator."
            )
        opened.append((path, problems, chain([first], rows)))
    session = open_study(settings, arguments.study, create=True)  # not before every file has shown that it can be read
    halves = []
    for path, problems, rows in opened:
        report = contents.import_rows(session, rows)
        _tell_import(path, session.record.name, report)
        broken = any(reason == BROKEN for _, reason in problems)
        _tell_problems(
            problems + list(report.problems),
            "what comes after the break is missing" if broken else "every other line was taken",
        )
        halves += [str(path)] * broken
    if halves:
        raise CoplError(
            f"Not whole: {', '.join(halves)}. What stands before the break was taken; get each anew and "
            "import it: lines that are there already are left alone."
        )
    return 0


def _tell_import(path: Path, name: str, report: ImportReport) -> None:
    print(
        f"{path.name} → study {name!r}: {report.labels_new:,} new labels, {report.labels_known:,} already there, "
        f"{report.pairs_new:,} new pairs, {report.users_new:,} new users."
    )


def _tell_problems(problems: list[tuple[int, str]], others: str) -> None:
    for line, reason in problems[:_SHOWN_PROBLEMS]:
        print(f"  line {line}: {reason}", file=sys.stderr)
    if len(problems) > _SHOWN_PROBLEMS:
        print(f"  … and {len(problems) - _SHOWN_PROBLEMS:,} more lines that were left out", file=sys.stderr)
    if problems:
        were = "line was" if len(problems) == 1 else "lines were"
        print(f"  {len(problems):,} {were} left out; {others}.", file=sys.stderr)


def _export(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.formats.own import write_jsonl

    written = write_jsonl(contents.export(open_study(settings, arguments.study)), arguments.out or sys.stdout)
    if arguments.out:
        print(f"{written:,} labels written to {arguments.out}")
    return 0


def _worker(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.trainer.worker import work

    need_device(settings)
    if hasattr(os, "nice"):
        os.nice(10)  # people at their pages come first where processors are few

    _log_to_terminal()
    return work(open_store(settings), settings)


def _fit(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.records import RunState
    from copl_core.trainer.worker import Trainer, hold_worker_lock

    need_device(settings)
    _log_to_terminal()
    session = open_study(settings, arguments.study)
    with hold_worker_lock(settings):
        trainer = Trainer(session.store, settings)
        trainer.recover()  # what an earlier one left behind is this run, where it is of the same kind
        run = runs.request_fit(session, "graph" if arguments.graph_only else "full", reason="asked for in a terminal")
        trainer.execute(run.id)
    run = session.store.run(run.id)
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        raise CoplError(
            f"Run {run.id} was broken off. {trainer.trouble.get(run.id, '')} Call this again, or start a "
            "worker: it goes on where it stood."
        )
    if run.state != RunState.DONE:
        raise CoplError(f"Run {run.id} {run.state}: {run.message}")
    snapshot = session.store.champion(session.id)
    facts = {"snapshot": snapshot.version, "labels": snapshot.n_labels, "metrics": snapshot.metrics}
    print(json.dumps(facts, indent=1))
    return 0


def _score(arguments: argparse.Namespace, settings: Settings) -> int:
    session = open_study(settings, arguments.study)
    users = {user.name: user.id for user in access.users(session)}
    missing = [name for name in arguments.user if name not in users]
    if missing:
        raise CoplError(
            f"There is no user {missing[0]!r} in study {session.record.name!r} with {len(users)} users; "
            "names are those of the people page."
        )
    view = rewards.reward(session, arguments.prompt, arguments.response, users=[users[name] for name in arguments.user])
    print(
        f"Snapshot {view.snapshot}.  {view.basis}  For each response: the chance that it is the preferred one "
        "(reward); n people stand behind a line."
    )
    for row in view.rows:
        cells = "  ".join(f"{win:6.1%} ({reward:+.2f})" for win, reward in zip(row.win, row.reward, strict=True))
        print(f"{row.name:24.24}  {cells}   {row.source}, n={row.n}")
    return 0


def _link(arguments: argparse.Namespace, settings: Settings) -> int:
    path = prepare(settings)
    print(f"http://localhost:{settings.port}{path}")
    return 0


def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.install.launcher import main as up

    need_device(settings)
    return up(settings, prepare)


def _weights(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.install.weights import fetch

    fetch(settings.weights)
    return 0


def _evaluate(arguments: argparse.Namespace, settings: Settings) -> int:
    from copl_core.evaluation import evaluate

    need_device(settings)
    return evaluate.main(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m copl_core", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=function)
        return sub

    def with_study(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument("--study", help="name of the study (default: the current one)")
        return sub

    sub = verb("import", _import, "Take pairs and labels from JSONL files, gzipped or not; twice adds nothing.")
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE")
    sub.add_argument("--study", default="Imported", help="study to put them in, made if missing (default: Imported)")
    sub = with_study(verb("export", _export, "Write every label as JSONL: user, pair, sides as shown, choice, time."))
    sub.add_argument("--out", type=Path, help="file to write (default: standard output)")
    sub = with_study(verb("fit", _fit, "Fit the study now, in this process, and publish a snapshot."))
    sub.add_argument("--graph-only", action="store_true", help="leave the reward model as it is")
    verb("worker", _worker, "Run the trainer: it refits when labels come, until Ctrl-C.")
    sub = with_study(verb("score", _score, "Print how users and groups are expected to judge responses."))
    sub.add_argument("--prompt", required=True)
    sub.add_argument("--response", required=True, action="append", help="give it two or more times")
    sub.add_argument("--user", action="append", default=[], help="name of a user; may be repeated")
    verb("link", _link, "Print a fresh sign-in link for the owner.")
    verb("up", _up, "Start the trainer and the app together (what `make run` does last).")
    verb("weights", _weights, "Fetch the bundled models.")
    _add_evaluate(verb)
    return parser


def _add_evaluate(verb) -> None:
    from copl_core.evaluation.evaluate import add_arguments

    add_arguments(verb("evaluate", _evaluate, "Train on one file, measure on another, in a place of its own."))


def _log_to_terminal() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    for name in ("huey", "alembic", "httpx", "transformers"):
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
