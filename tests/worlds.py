"""Small studies that several tests share.

``two_camps``: users who like short responses and users who like long ones, on a separate store.  Nothing is stubbed;
the text embedding is the style features alone, so that the tests need no language model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np

from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.features import VERSION
from copl_core.insight.layout import Layout
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, ImportRow, Kind, Label
from copl_core.study import contents, labelling, runs
from copl_core.study.session import Session
from copl_core.trainer.worker import Trainer
from copl_core.training.text_embedder import measured
from tests.databases import empty_database

SHORT, LONG = "short", "long"


def short_text(prompt: int) -> str:
    return f"Yes, number {prompt}."


def long_text(prompt: int) -> str:
    return (
        f"There is a good deal to say about number {prompt}, and all of it matters. " * 4
        + "First look at the whole, then at its parts, and then at the whole again; only then decide."
    )


def pairs_to_label(n_prompts: int, start: int = 0) -> list[ImportRow]:
    """Pairs without labels, one per prompt."""
    return [
        ImportRow(line, f"What about number {line}?", short_text(line), long_text(line))
        for line in range(start, start + n_prompts)
    ]


def camp_labels(
    n_users: int = 16,
    n_prompts: int = 12,
    per_user: int = 10,
    label_noise: float = 0.08,
    seed: int = 0,
    kind: Kind = Kind.SIMULATED,
) -> list[ImportRow]:
    """Labels of users: even ones like short responses, odd ones long ones; a share ``label_noise`` is flipped."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        for prompt in rng.choice(n_prompts, per_user, replace=False).tolist():
            a, b = short_text(prompt), long_text(prompt)
            swapped = bool(rng.integers(2))
            likes_a = (camp_of(user) == SHORT) != (rng.random() < label_noise)
            rows.append(
                ImportRow(
                    len(rows) + 1,
                    f"What about number {prompt}?",
                    b if swapped else a,
                    a if swapped else b,
                    choice=Choice.LEFT if likes_a != swapped else Choice.RIGHT,
                    annotator=f"user {user:02d}",
                    key=f"{seed}-{user}-{prompt}",
                    kind=kind,
                    true_group=camp_of(user),
                    position_known=True,
                )
            )
    return rows


def camp_of(user: int) -> str:
    return SHORT if user % 2 == 0 else LONG


def by_style(
    texts: Sequence[tuple[str, str]],
    progress: Callable[[int, int], None] | None = None,
    features_version: int = VERSION,
) -> np.ndarray:
    """φ without a language model: the style features (T, F)."""
    if progress is not None:
        progress(len(texts), len(texts))
    return measured([response for _, response in texts], features_version)


def open_study(home: Path, **settings) -> Session:
    """The first study of an installation in ``home``; an empty one if there is none yet."""
    chosen = Settings(home=home, **settings)
    if not chosen.database_url:
        empty_database(home)
    store = open_store(chosen)
    record = store.current_study() or store.create_study("Two camps")
    return Session(store, chosen, record.id)


def two_camps(home: Path, *, n_prompts: int = 12, **settings) -> Session:
    """A study with all pairs of the two camps and the labels of 16 simulated users."""
    session = open_study(home, **settings)
    contents.import_rows(session, pairs_to_label(n_prompts))
    contents.import_rows(session, camp_labels(n_prompts=n_prompts))
    return session


def trainer(session: Session, **more) -> Trainer:
    return Trainer(session.store, session.settings, embed=by_style, **more)


def fit_graph_now(session: Session) -> str:
    """Carry out a graph run in this process and return the version it publishes."""
    run = runs.request_fit(session, "graph")
    trainer(session).execute(run.id)
    done = session.store.run(run.id)
    assert done.snapshot, done.message
    return done.snapshot


def three_people(home: Path, **settings) -> Session:
    """Five labels by each of three users: enough for a fit, and too few for a UMAP layout, which takes time."""
    session = open_study(home, **settings)
    contents.import_rows(session, pairs_to_label(6))
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=5))
    return session


@cache
def _trained_home(shared: Path, world: Callable[[Path], Session]) -> Path:
    """A world with its first snapshot; the first process that needs it fits it, the others wait."""
    home = shared / f"trained-{world.__name__}"
    with (shared / f"{home.name}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not home.exists():
            unfinished = shared / f"{home.name}.unfinished"
            rmtree(unfinished, ignore_errors=True)
            session = world(unfinished)
            fit_graph_now(session)
            session.store.engine.dispose()
            unfinished.rename(home)
    return home


def trained(world: Callable[[Path], Session], factory, home: Path, **settings) -> Session:
    """A copy in ``home`` of a world with its first snapshot, which is fitted once per test run.

    Args:
        factory: pytest's ``tmp_path_factory``; processes that run side by side share the folder above its own.

    Raises:
        ValueError: the graph would be another one than later tests expect under the name of the world.
    """
    if _has_quick_graphs() != world.__name__.startswith("quick_"):
        state = "not replaced" if world.__name__.startswith("quick_") else "replaced"
        raise ValueError(
            f"Job.graph_config is {state} where {world.__name__} is fitted once for all tests. Take a world of another "
            "name: it begins with quick_ where Job.graph_config is replaced, and only there."
        )
    own = factory.getbasetemp()
    copytree(_trained_home(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own, world), home)
    return open_study(home, **settings)


def _has_quick_graphs() -> bool:
    """Whether a test has replaced how graphs are configured (without importing torch)."""
    job = sys.modules.get("copl_core.trainer.job")
    return job is not None and job.Job.graph_config.__qualname__ != "Job.graph_config"


def label_in_camp(session: Session, user_id: int, camp: str, count: int) -> None:
    """Label pairs as a member of a camp would."""
    for _ in range(count):
        task = labelling.next_task(session, user_id)
        left_is_short = len(task.left.text) < len(task.right.text)
        labelling.submit(session, task.id, user_id, Choice.LEFT if left_is_short == (camp == SHORT) else Choice.RIGHT)


# ---- states made by hand, without a fit


def graph_state(n_users: int = 6, n_responses: int = 8, seed: int = 0) -> GraphState:
    """A state of random numbers with labels by every user; ids differ from row numbers."""
    rng = np.random.default_rng(seed)
    config = GraphConfig.build(dim=4, members=1, n_layers=0)
    user = np.repeat(np.arange(n_users), 2)
    left = rng.integers(0, n_responses, len(user))
    labels = Comparisons.build(user, left, (left + 1) % n_responses, rng.integers(0, 2, len(user)))
    weights = {
        "phi_mean": np.zeros(3, np.float32),
        "phi_scale": np.ones(3, np.float32),
        "0.text.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "0.bias": np.zeros(4, np.float32),
    }
    return GraphState(
        user_ids=np.arange(n_users) * 10 + 5,
        user_vectors=rng.normal(size=(n_users, 4)).astype(np.float32),
        user_position_bias=np.zeros(n_users, np.float32),
        position_bias=0.0,
        response_ids=np.arange(n_responses) + 100,
        response_vectors=rng.normal(size=(n_responses, 4)).astype(np.float32),
        response_bias=np.zeros(n_responses, np.float32),
        temperature=1.0,
        labels=labels,
        n_labels=np.bincount(user, minlength=n_users),
        weights=weights,
        config=config.stored(),
        metrics={"accuracy": 0.5, "n": 3},
    )


def layout_of(state: GraphState) -> Layout:
    """A map of the state's users: two groups, side by side."""
    n = len(state.user_ids)
    xy = np.column_stack([np.arange(n), np.zeros(n)]).astype(np.float32)
    return Layout(state.user_ids, xy, np.arange(n) % 2, float("nan"), {"method": "by hand"})


def label(left_id: int, right_id: int, choice: Choice = Choice.LEFT, *, pair_id: int = 1, number: int = 1) -> Label:
    return Label(number, None, 1, pair_id, 1, left_id, right_id, choice, 1, "", None, datetime.now(UTC))
