"""Requests per second of the reward server, beside a bare forward pass of the same texts.

    python -m benchmarks.serving [--questions N] [--clients K] [--requests N] [--bad N]

The demo study with the snapshot that the product ships, except that graph and text reward have even weights on new
texts, so that both halves read them.  No cache knows the texts, whose sentences are combined in a new order.  The
server runs in this process behind a socket, and K clients ask it for the rewards of four responses for one person, each
over one connection.  The bare pass tokenises the same texts and runs them through the backbone once, without experts,
users or HTTP.  A reward takes a pass of the sentence model that places new texts, one of the lower layers, and one of
the upper layers for each expert in use: all of them in ``/v1/rewards``, whose intervals need draws of the person's
vector and similar people, and two in ``/get_reward``, which has no intervals.

Then K clients ask --requests times about labelled texts, for people and groups, while the champion changes all the
time between two snapshots in which the graph speaks alone, so that a request takes no pass of a language model; and
--bad broken bodies are sent, after which the database must hold what it held before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from http.client import HTTPConnection
from itertools import count, cycle, islice
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
import uvicorn

from benchmarks.bad_bodies import bad_body
from benchmarks.reward_latency import RESPONSES, Question, new_question
from copl_core.__main__ import open_store, seed_demo
from copl_core.config import Settings
from copl_core.reward.hidden import pad_states
from copl_core.reward.model import RewardModel
from copl_core.serving.app import make_app
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import record_of, write_snapshot
from copl_core.study import service_tokens
from copl_core.study.session import Session

DESCRIPTION = "requests per second of the reward server, beside a bare forward pass of the same texts"
EVEN = Mix(0.5, 0.5, 0, 0.5, 0.5, 0)
GRAPH, CHANGING = Mix(), ("v0003", "v0004")  # the graph alone, in the snapshots that take turns as champion
PERSON = "sim-001"
GET_REWARD = f"/get_reward?user={PERSON}"
BATCH = 32  # texts of a bare pass in batches


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=150, help="each with four responses")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1000, help="about labelled texts, while the champion changes")
    parser.add_argument("--bad", type=int, default=2000, help="broken bodies")
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    questions = [new_question(rng) for _ in range(arguments.questions)]
    with tempfile.TemporaryDirectory() as folder:
        session = demo(Path(folder), arguments.weights)
        with Server(session) as server:
            if questions:
                report(server, questions, arguments.clients)
            session.store.promote(session.id, CHANGING[0])
            labelled = labelled_questions(session)
            changing(server, labelled, arguments.requests, arguments.clients)
            broken(server, labelled, arguments.bad)
    return 0


def demo(home: Path, weights: Path) -> Session:
    """The demo study; its champion gives graph and text reward even weights."""
    (home / "weights").symlink_to(weights.resolve(), target_is_directory=True)
    session = seed_demo(open_store(Settings(home=home)), Settings(home=home))
    first = session.snapshot()
    if first is None or not first.has_reward:
        raise SystemExit("The demo study came without its snapshot.")

    def save(target: Path, mix: Mix) -> None:
        shutil.copytree(first.folder / "reward", target, dirs_exist_ok=True)
        (target / "mix.json").write_text(json.dumps(asdict(mix)))

    manifest = {name: value for name, value in first.manifest.items() if name != "files"}
    for version, mix in (("v0002", EVEN), *((version, GRAPH) for version in CHANGING)):
        written = write_snapshot(
            session.snapshot_root,
            version,
            graph=first.graph,
            layout=first.layout,
            manifest=manifest,
            save_reward=partial(save, mix=mix),
        )
        session.store.publish(session.id, record_of(written), run_id=None)
    session.store.promote(session.id, "v0002")
    return session


def report(server: Server, questions: Sequence[Question], clients: int) -> None:
    session = server.session
    texts = [(prompt, response) for prompt, responses in questions for response in responses]
    model = session.scorer().model(session.snapshot())
    bare(model, texts[:RESPONSES], RESPONSES)  # the first pass of a process is slower
    print(
        f"{len(questions)} questions with {RESPONSES} responses, {clients} clients, {torch.get_num_threads()} threads"
    )
    print(f"{'':52}{'requests/s':>11}{'texts/s':>9}")
    seconds = [bare(model, texts, RESPONSES), bare(model, texts, BATCH)]
    line("bare forward pass, one question at a time", len(questions), seconds[0])
    line(f"bare forward pass, batches of {BATCH} texts", len(questions), seconds[1])
    server.ask(questions[:1], 1)  # loads the model
    half = len(questions) // 2
    served = {}
    for name, some in (("/v1/rewards", questions[1:half]), (GET_REWARD, questions[half:])):
        served[name] = server.ask(some, clients, name) / len(some)
        line(f"{name.partition('?')[0]}, new texts", len(some), served[name] * len(some))
        line(f"{name.partition('?')[0]}, the same texts again", len(some), server.ask(some, clients, name))
    for name, per_request in served.items():
        times = per_request / (seconds[0] / len(questions))
        print(f"{name.partition('?')[0]}: a request with new texts takes {times:.1f} times a bare pass of its texts.")


def line(name: str, questions: int, seconds: float) -> None:
    print(f"{name:52}{questions / seconds:11.1f}{questions * RESPONSES / seconds:9.1f}", flush=True)


def labelled_questions(session: Session) -> list[Question]:
    """Prompts of the study with two of their labelled responses."""
    pairs = [session.store.pair(pair_id) for pair_id, *_ in session.store.pairs(session.id)]
    return [(one.prompt, [one.first.text, one.second.text]) for one in pairs]


def changing(server: Server, questions: Sequence[Question], requests: int, clients: int) -> None:
    """Ask while the champion changes between two snapshots; every answer must be one of theirs.

    Raises:
        SystemExit: a request was not answered, or only one snapshot answered.
    """
    session, going = server.session, Event()
    going.set()

    def change() -> None:
        for number in count():
            if not going.is_set():
                return
            session.store.promote(session.id, CHANGING[number % 2])

    names = [user.name for user in session.store.users(session.id)][:20]
    bodies = [
        {"prompt": prompt, "responses": responses, **({"group": 1} if n % 3 == 0 else {"user": names[n % len(names)]})}
        for n, (prompt, responses) in enumerate(islice(cycle(questions), requests))
    ]
    changer = Thread(target=change)
    changer.start()
    started = time.perf_counter()
    try:
        answers = server.post([("/v1/rewards", json.dumps(body).encode()) for body in bodies], clients)
    finally:
        going.clear()
        changer.join()
    seconds = time.perf_counter() - started
    wrong = [answer for answer in answers if answer[0] != 200]
    found = Counter(json.loads(answer)["snapshot"] for status, answer in answers if status == 200)
    print(
        f"{requests:,} requests about labelled texts from {clients} clients while the champion changes: "
        f"{len(wrong)} errors, {requests / seconds:.1f} requests/s, answered by "
        + ", ".join(f"{version} ({n:,})" for version, n in sorted(found.items())),
        flush=True,
    )
    if wrong or len(found) != 2:
        raise SystemExit(f"Not every request was answered: {wrong[:3]}")


def broken(server: Server, questions: Sequence[Question], n: int) -> None:
    """Send broken bodies; each must be refused with 4xx and a sentence, and nothing written.

    Raises:
        SystemExit: one was not.
    """
    rng, session = np.random.default_rng(1), server.session
    bodies = [bad_body(rng, *questions[rng.integers(len(questions))]) for _ in range(n)]
    before = contents_digest(session)
    answers = server.post(bodies, 1)
    statuses = Counter(status for status, _ in answers)
    wrong = [
        (body[:200], status, answer[:200])
        for (_, body), (status, answer) in zip(bodies, answers, strict=True)
        if not (400 <= status < 500 and json.loads(answer)["error"].endswith("."))
    ]
    written = "nothing" if contents_digest(session) == before else "something"
    listed = ", ".join(f"{status} ({count:,})" for status, count in sorted(statuses.items()))
    print(f"{n:,} broken bodies: {listed}; {len(wrong)} without a sentence; {written} written.", flush=True)
    if wrong or written != "nothing":
        raise SystemExit(f"Not every broken body was refused: {wrong[:3]}")


def contents_digest(session: Session) -> str:
    digest = sha256()

    def take(part: str, rows: Iterator[dict[str, Any]]) -> None:
        for row in rows:
            digest.update(json.dumps([part, row]).encode())

    session.store.read_study(session.id, take)
    return digest.hexdigest()


@torch.no_grad()
def bare(model: RewardModel, texts: Sequence[tuple[str, str]], batch: int) -> float:
    """Seconds of tokenising and running texts, sorted by length within a batch, and nothing else."""
    started = time.perf_counter()
    for start in range(0, len(texts), batch):
        ids = sorted(model.backbone.encode(texts[start : start + batch], model.config.max_tokens), key=len)
        with model.autocast():
            states = model.backbone.lower_states(ids)
            model.run(*pad_states(states), None, None)
    return time.perf_counter() - started


class Server:
    """The server on a free port of this machine, and clients that ask it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        _, secret = service_tokens.make_token(session, f"benchmark {time.time_ns()}", per_minute=1_000_000)
        self.header = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        config = uvicorn.Config(make_app(session.store, session.settings), port=0, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = Thread(target=self.server.run)

    def __enter__(self) -> Server:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    def post(self, bodies: Sequence[tuple[str, bytes]], clients: int) -> list[tuple[int, bytes]]:
        """(status, answer) of each (address, body), sent by clients that keep their connection, in order."""
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(self._post, [bodies[n::clients] for n in range(clients)]))
        return [answers[n % clients][n // clients] for n in range(len(bodies))]

    def _post(self, bodies: Sequence[tuple[str, bytes]]) -> list[tuple[int, bytes]]:
        connection, found = HTTPConnection("127.0.0.1", self.port, timeout=600), []
        for address, body in bodies:
            connection.request("POST", address, body, self.header)
            answer = connection.getresponse()
            found.append((answer.status, answer.read()))
        connection.close()
        return found

    def ask(self, questions: Sequence[Question], clients: int, address: str = "/v1/rewards") -> float:
        """Seconds until all questions are answered.

        Raises:
            SystemExit: a request was refused.
        """
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(
                pool.map(lambda own: self._client(own, address), [questions[n::clients] for n in range(clients)])
            )
        if {status for own in answers for status in own} != {200}:
            raise SystemExit(f"A request was refused: {answers}")
        return time.perf_counter() - started

    def _client(self, questions: Sequence[Question], address: str) -> list[int]:
        connection, found = HTTPConnection("127.0.0.1", self.port, timeout=600), []
        for prompt, responses in questions:
            body = {"prompt": prompt, "responses": responses, "user": PERSON}
            if address == GET_REWARD:
                body = {"query": [prompt + text for text in responses], "prompts": [prompt] * len(responses)}
            connection.request("POST", address, json.dumps(body), self.header)
            answer = connection.getresponse()
            answer.read()
            found.append(answer.status)
        connection.close()
        return found


if __name__ == "__main__":
    sys.exit(main())
