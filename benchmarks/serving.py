"""Requests per second of the reward server, beside a bare forward pass of the same texts.

    python -m benchmarks.serving [--questions N] [--clients K]

The demo study with the snapshot that the product ships, except that graph and text reward have even weights on new
texts, so that both halves read them.  No cache knows the texts, whose sentences are combined in a new order.  The
server runs in this process behind a socket, and K clients ask it for the rewards of four responses for one person, each
over one connection.  The bare pass tokenises the same texts and runs them through the backbone once, without experts,
users or HTTP.  A reward takes a pass of the sentence model that places new texts, one of the lower layers, and one of
the upper layers for each expert in use: all of them in ``/v1/rewards``, whose intervals need draws of the person's
vector and similar people, and two in ``/get_reward``, which has no intervals.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import numpy as np
import torch
import uvicorn

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
PERSON = "sim-001"
GET_REWARD = f"/get_reward?user={PERSON}"
BATCH = 32  # texts of a bare pass in batches


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=150, help="each with four responses")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    questions = [new_question(rng) for _ in range(arguments.questions)]
    with tempfile.TemporaryDirectory() as folder:
        session = demo(Path(folder), arguments.weights)
        report(session, questions, arguments.clients)
    return 0


def demo(home: Path, weights: Path) -> Session:
    """The demo study; its champion gives graph and text reward even weights."""
    (home / "weights").symlink_to(weights.resolve(), target_is_directory=True)
    session = seed_demo(open_store(Settings(home=home)), Settings(home=home))
    first = session.snapshot()
    if first is None or not first.has_reward:
        raise SystemExit("The demo study came without its snapshot.")

    def save(target: Path) -> None:
        shutil.copytree(first.folder / "reward", target, dirs_exist_ok=True)
        (target / "mix.json").write_text(json.dumps(asdict(EVEN)))

    manifest = {name: value for name, value in first.manifest.items() if name != "files"}
    written = write_snapshot(
        session.snapshot_root, "v0002", graph=first.graph, layout=first.layout, manifest=manifest, save_reward=save
    )
    session.store.publish(session.id, record_of(written), run_id=None)
    return session


def report(session: Session, questions: Sequence[Question], clients: int) -> None:
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
    with Server(session) as server:
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
        _, secret = service_tokens.make_token(session, "benchmark", per_minute=1_000_000)
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
