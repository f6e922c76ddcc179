"""A study of a million people for benchmarks: rows made by a PostgreSQL server, and a snapshot that knows all of them.

Texts and pairs are imported as a file is.  People, tasks and labels are made inside the server (``INSERT … SELECT``
over ``generate_series``) while the tables of labels and tasks have neither indexes nor foreign keys, which are built
afterwards.  Each person answers as one of four tastes does; what a person answers does not depend on how many others
there are.

Of the first ``SAMPLE`` people a graph and a reward model are really fitted, with few steps.  Everybody else has the
vector of one of them with a little noise, and their own labels: the snapshot has the size and the form of one that was
fitted to everybody, and its map has four clouds instead of a layout.  It has no linear text reward.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from benchmarks.pages import RESPONSES, _text
from copl_core.features import measure_many
from copl_core.insight import describe
from copl_core.insight.group_names import group_traits
from copl_core.insight.layout import Layout
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, ImportRow, Role, SnapshotRecord, TrainingData
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import write_snapshot
from copl_core.study import contents
from copl_core.study.session import Session

TASTES = 4
SAMPLE = 10_000  # people of whom a graph is fitted
GOLD = 20  # gold pairs, each person in four has answered one of them
NOISE = 0.1  # of the vectors of all others, in standard deviations of the sample
REWARD_SECONDS, REWARD_TEXTS = 30.0, 800  # of the fit of the reward model, and responses that it reads
ROLES = (Role.OWNER, Role.RESEARCHER)  # of the first people; all others are annotators
Report = Callable[[str], None]

# Of the n-th answer of person i, counted from 0: the pair's number, the side, and a uniform number.  Hashes, so that
# they are the same in every study.
_HASH = "(hashint8extended(i::bigint * 64 + {n}, {salt}) & 2147483647)"
_DRAWN = """
create temp table drawn as
select {n}::bigint * {people} + i + 1 as id, {first_user} + i as user_id, p.id as pair_id,
       case when swap then p.second_id else p.first_id end as left_id,
       case when swap then p.first_id else p.second_id end as right_id,
       case when {tie} then 'tie' when (u < p.chance[1 + i % {tastes}]) <> swap then 'left' else 'right' end as choice,
       {reason} as reason, {gold} as attention,
       timestamp '2026-01-01' + ({n}::bigint * {people} + i) * interval '0.5 second' as at
from (select i, {number} as number, {swap} as swap, {uniform} as u from generate_series(0, {people} - 1) i{some}) d
join numbered p on p.gold = {gold} and p.number = d.number
"""
_TASKS = """
insert into task (id, user_id, pair_id, left_id, right_id, reason, state, handed_at, expires_at, closed_at,
                  forecast_left, forecast_crowd, forecast_snapshot)
select id, user_id, pair_id, left_id, right_id, reason, 'answered', at, at + interval '15 minutes', at,
       case when reason = 'uniform' then 0.4 + 0.2 * (id % 2) end, case when reason = 'uniform' then 0.5 end,
       case when reason = 'uniform' then 'v0001' end
from drawn
"""
_LABELS = """
insert into label (id, study_id, task_id, user_id, pair_id, left_id, right_id, choice, strength, reason, milliseconds,
                   key, counts, attention, revision, created_at)
select id, {study}, id, user_id, pair_id, left_id, right_id, choice, 1, '', 2000 + id % 4000, md5(id::text), true,
       attention, id, at
from drawn
"""
# As ``db.label_counts`` keeps them
_COUNTS = """
update "user" set n_preferences = counted.labels - counted.checks, n_checks = counted.checks
from (select user_id, count(*) as labels, sum(attention::int) as checks from label group by user_id) as counted
where "user".id = counted.user_id
"""


def fill(connection: Any, session: Session, n_people: int, each: int, n_prompts: int, report: Report) -> None:
    """Put texts, people, tasks and labels into an empty study.

    Args:
        connection: of psycopg, to the database of the session.
        each: labels of a person.
    """
    clock = time.monotonic()
    contents.import_rows(session, _pairs(n_prompts))
    report(f"{2 * n_prompts:,} pairs imported after {time.monotonic() - clock:.0f} s")
    with connection.transaction():
        _people(connection, session.id, n_people)
        _number_pairs(connection, session.id)
        dropped = _drop_indexes(connection)
        first_user = connection.execute('select min(id) from "user" where study_id = %s', [session.id]).fetchone()[0]
        for n in range(each):
            connection.execute(_drawn(n, each, n_people, first_user, 2 * n_prompts - GOLD))
            connection.execute(_TASKS)
            connection.execute(_LABELS.format(study=session.id))
            connection.execute("drop table drawn")
        report(f"{n_people * each:,} labels after {time.monotonic() - clock:.0f} s, without indexes")
        for statement in dropped:
            connection.execute(statement)
        for table in ("task", "label"):
            connection.execute(f"select setval(pg_get_serial_sequence('{table}', 'id'), (select max(id) from {table}))")
        connection.execute(_COUNTS)
        connection.execute("update study set revision = (select count(*) from label where study_id = study.id)")
    connection.execute("vacuum analyze")
    report(f"indexes, foreign keys and statistics after {time.monotonic() - clock:.0f} s")


def _pairs(n_prompts: int) -> Iterator[ImportRow]:
    """Two pairs of each prompt, of four responses: short or long, with lists or without."""
    for prompt in range(n_prompts):
        texts = [_text(prompt, which) for which in range(RESPONSES)]
        for a, b in ((0, 1), (2, 3)) if prompt % 2 else ((0, 2), (1, 3)):
            yield ImportRow(0, f"Question {prompt}: how would you go about it?", texts[a], texts[b])


def _people(connection: Any, study: int, n_people: int) -> None:
    connection.execute(
        'insert into "user" (study_id, name, kind, role, created_at) '
        "select %s, 'person ' || i, 'human', 'annotator', timestamp '2026-01-01' from generate_series(1, %s) i",
        [study, n_people],
    )
    for number, role in enumerate(ROLES, 1):
        connection.execute('update "user" set role = %s where name = %s', [role.value, f"person {number}"])


def _number_pairs(connection: Any, study: int) -> None:
    """A table of the pairs by number, with the chance that each taste prefers the first response."""
    rows = connection.execute(
        "select p.id, p.first_id, p.second_id, a.text, b.text from pair p join response a on a.id = p.first_id "
        "join response b on b.id = p.second_id where p.study_id = %s order by p.id",
        [study],
    ).fetchall()
    connection.execute(
        "create temp table numbered (number int, gold bool, id int, first_id int, second_id int, chance float8[])"
    )
    with connection.cursor().copy("copy numbered from stdin") as copy:
        for number, (pair, first, second, one, other) in enumerate(rows):
            gold = number < GOLD
            chance = [expit(1.5 * (_liking(one, taste) - _liking(other, taste))) for taste in range(TASTES)]
            copy.write_row((number - GOLD * (not gold), gold, pair, first, second, [float(one) for one in chance]))
    connection.execute("update pair set gold_id = n.first_id from numbered n where n.id = pair.id and n.gold")


def _liking(text: str, taste: int) -> int:
    long, listed = "Ask somebody." in text, "\n- " in text
    return (-1) ** long * (-1) ** (taste & 1) + (-1) ** listed * (-1) ** (taste >> 1)


def _drawn(n: int, each: int, n_people: int, first_user: int, n_pairs: int) -> str:
    """The statement that draws the n-th answer of everybody.  The last repeats the first with sides swapped; the one
    before it is about a gold pair, for one person in four.
    """
    repeat, gold = n == each - 1, n == each - 2
    like = 0 if repeat else n
    return _DRAWN.format(
        n=n,
        people=n_people,
        first_user=first_user,
        tastes=TASTES,
        number=f"{_HASH.format(n=like, salt=1)} % {GOLD if gold else n_pairs}",
        swap=f"({_HASH.format(n=like, salt=2)} % 2 = {int(repeat)})",
        uniform=f"{_HASH.format(n=n, salt=3)} / 2147483648.0",
        tie="u > 0.97",
        gold=str(gold).lower(),
        some=" where i % 4 = 0" if gold else "",
        reason="'repeat'"
        if repeat
        else "'gold'"
        if gold
        else f"case when {n} % 4 = 0 then 'uniform' else 'informative' end",
    )


def _drop_indexes(connection: Any) -> list[str]:
    """Drop every constraint and index of labels and tasks; returns the statements that make them again."""
    again: list[str] = []
    constraints = connection.execute(
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid), contype from pg_constraint where "
        "conrelid::regclass::text in ('label', 'task', 'draft') and contype in ('p', 'u', 'f') order by contype = 'f'"
    ).fetchall()
    for table, name, definition, _ in reversed(constraints):
        connection.execute(f"alter table {table} drop constraint {name}")
        again.insert(0, f"alter table {table} add constraint {name} {definition}")
    indexes = connection.execute(
        "select indexname, indexdef from pg_indexes where schemaname = 'public' and tablename in ('label', 'task')"
    ).fetchall()
    for name, definition in indexes:
        connection.execute(f"drop index {name}")
        again.insert(0, definition)
    return again


# ---- the snapshot


def publish(connection: Any, session: Session, fit: Path, report: Report) -> None:
    """A snapshot of everybody; what is fitted is kept in the folder ``fit``, and read from there if it is there."""
    clock = time.monotonic()
    data = _data(connection, session)
    report(f"{len(data.labels):,} labels read after {time.monotonic() - clock:.0f} s")
    if not (fit / "graph").is_dir():
        _fit(session, _sample(data), fit)
        report(f"graph and reward model of {SAMPLE:,} people fitted after {time.monotonic() - clock:.0f} s")
    state = _everybody(GraphState.load(fit / "graph"), data)
    layout = _clouds(state, dict(zip(data.response_ids.tolist(), data.responses, strict=True)))

    def save_reward(folder: Path) -> None:
        (folder / "model").mkdir()
        for file in (fit / "model").iterdir():
            (folder / "model" / file.name).write_bytes(file.read_bytes())
        state.save(folder / "graph")
        (folder / "mix.json").write_text(json.dumps(asdict(Mix(text=0.3))))

    facts = json.loads((fit / "facts.json").read_text())
    metrics = {"graph": state.metrics, "reward_watermark": data.watermark, "kind": "full", "seconds": 0.0}
    manifest = {"study": session.id, "run": None, "kind": "full", "watermark": data.watermark, "seconds": 0.0}
    manifest |= {"labels": len(data.labels), "reward": facts | {"watermark": data.watermark}, "metrics": metrics}
    manifest |= {"made_at": datetime.now(UTC).isoformat()}
    write_snapshot(
        session.snapshot_root, "v0001", graph=state, layout=layout, save_reward=save_reward, manifest=manifest
    )
    record = SnapshotRecord("v0001", None, data.watermark, len(data.labels), metrics, datetime.now(UTC))
    session.store.publish(session.id, record, run_id=None)
    report(f"snapshot written after {time.monotonic() - clock:.0f} s")


def _data(connection: Any, session: Session) -> TrainingData:
    """All that a fit reads, by COPY."""
    study = session.id
    users = _columns(connection, f'select id from "user" where study_id = {study} order by id', 1)[:, 0]
    texts = connection.execute(
        "select r.id, r.prompt_id, r.text, p.text from response r join prompt p on p.id = r.prompt_id "
        "where p.study_id = %s order by r.id",
        [study],
    ).fetchall()
    prompts = {prompt: text for _, prompt, _, text in texts}
    rows = {prompt: row for row, prompt in enumerate(prompts)}
    outcome = "case choice when 'left' then 2 when 'right' then 0 else 1 end"
    labels = _columns(
        connection,
        f"select user_id, left_id, right_id, {outcome} from label where study_id = {study} and counts "
        "and not attention order by id",
        4,
    )
    response_ids = np.array([row[0] for row in texts], np.int64)
    sides = (np.searchsorted(response_ids, labels[:, side]) for side in (1, 2))
    return TrainingData(
        users,
        response_ids,
        np.array([rows[row[1]] for row in texts], np.int64),
        tuple(prompts.values()),
        tuple(row[2] for row in texts),
        Comparisons.build(np.searchsorted(users, labels[:, 0]), *sides, labels[:, 3] / 2),
        session.store.revision(study),
    )


def _columns(connection: Any, query: str, n: int) -> np.ndarray:
    """The rows of a query of integers, (rows, n)."""
    import pandas as pd

    buffer = BytesIO()
    with connection.cursor().copy(f"copy ({query}) to stdout (format csv)") as copy:
        for block in copy:
            buffer.write(block)
    buffer.seek(0)
    return pd.read_csv(buffer, header=None, dtype=np.int32).to_numpy(np.int64).reshape(-1, n)


def _sample(data: TrainingData) -> TrainingData:
    chosen = data.labels.take(data.labels.user < SAMPLE)
    return replace(data, user_ids=data.user_ids[:SAMPLE], labels=chosen)


def _fit(session: Session, data: TrainingData, folder: Path) -> None:
    from copl_core.install.weights import resolver
    from copl_core.reward.model import RewardConfig
    from copl_core.training.graph_fit import fit_graph
    from copl_core.training.reward_fit import fit_reward

    phi = measure_many([text for _, text in data.texts()])
    graph = fit_graph(data, phi, GraphConfig.build(members=1, max_steps=40), seed=0)
    config = RewardConfig(backbone="minilm")
    weights = resolver(session.settings.weights)
    few = data.with_labels(data.labels.take(np.maximum(data.labels.left, data.labels.right) < REWARD_TEXTS))
    model = fit_reward(few, graph.user_vectors, config, weights=weights, time_budget_s=REWARD_SECONDS)
    for part, name in ((graph, "graph"), (model, "model")):
        (folder / name).mkdir(parents=True)
        part.save(folder / name)
    facts = {"fitted_in": "v0001", "backbone": "minilm", "config": asdict(config), "metrics": {}, "fit": model.metrics}
    (folder / "facts.json").write_text(json.dumps(facts))


def _everybody(fitted: GraphState, data: TrainingData) -> GraphState:
    """The fitted graph with a row for each person of the study."""
    rng, n = np.random.default_rng(0), data.n_users
    rows = np.arange(n) % len(fitted.user_ids)
    vectors = fitted.user_vectors[rows]
    noise = rng.standard_normal(vectors.shape, np.float32) * (NOISE * fitted.user_vectors.std(0))
    vectors[len(fitted.user_ids) :] += noise[len(fitted.user_ids) :]
    heat = fitted.user_inverse_temperature
    return replace(
        fitted,
        user_ids=data.user_ids,
        user_vectors=vectors,
        user_position_bias=fitted.user_position_bias[rows],
        labels=data.labels,
        n_labels=np.bincount(data.labels.user, minlength=n),
        user_inverse_temperature=None if heat is None else heat[rows],
    )


def _clouds(state: GraphState, texts: dict[int, str]) -> Layout:
    """A map of four clouds, one for each taste."""
    rng, n = np.random.default_rng(1), len(state.user_ids)
    group = np.arange(n) % TASTES
    centres = np.array([[0, 0, 0], [5, 1, 2], [1, 5, -2], [6, 6, 1]], np.float32)
    places = centres[group] + rng.standard_normal((n, 3), np.float32)
    traits = group_traits(state, group, describe.styles(state, texts), {})
    return Layout(state.user_ids, places[:, :2].copy(), group, 0.4, {"groups": "four tastes"}, places, traits=traits)
