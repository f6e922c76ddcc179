"""How long each page takes to show its first content on a large study: 10,000 people and 200,000 labels.

    python -m benchmarks.pages [--people N] [--labels N] [--home FOLDER]

A study of four groups is generated, and its graph, map and reward model are really fitted, with few steps, since this
measures pages and not models.  The owner then opens each page twice in a real browser, on a separate server where only
the labelling page was open before: the first visit reads the snapshot and imports what the page needs, the second finds
it in memory.  "First content" is the first sentence, figure or table on screen; "whole" is the end of the page's
script. With ``--home`` the study is stored there and used again, and ``--pages`` selects the pages.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.app_alone import app_alone
from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.features import measure_many
from copl_core.records import Choice, ImportRow, Role, SnapshotRecord
from copl_core.study import access, contents
from copl_core.study.session import Session

DESCRIPTION = "the time to the first content of every page, 10,000 people and 200,000 labels"
PAGES = ("", "taste", "people", "experts", "controversy", "reward", "training", "quality", "settings")
CONTENT = ", ".join(
    f"[data-testid=stMain] [data-testid={kind}]" for kind in ("stMarkdown", "stPlotlyChart", "stDataFrame", "stAlert")
)
RESPONSES = 4  # per prompt
REWARD_SECONDS = 40.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=200_000)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--home", type=Path, help="store the study in this folder, or use the one that is there")
    parser.add_argument("--pages", nargs="+", choices=PAGES[1:], metavar="PAGE", default=PAGES)
    parser.add_argument("--weights", type=Path, default=Settings.from_environment().weights)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        home = (arguments.home or Path(folder)).resolve()
        if not (home / "copl.db").exists():
            prepare(home, arguments.people, arguments.labels, arguments.prompts, arguments.weights.resolve())
        measure(home, arguments.pages)
    return 0


# ---- a large study


def prepare(home: Path, n_people: int, n_labels: int, n_prompts: int, weights: Path) -> None:
    """A study with that many labels and a snapshot with graph, map and reward model."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "weights").symlink_to(weights, target_is_directory=True)
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.create_study("Large").id)
    started = time.monotonic()
    contents.import_rows(session, labels(n_people, n_labels, n_prompts, np.random.default_rng(0)))
    report("imported", started)
    publish(session)


def labels(n_people: int, n_labels: int, n_prompts: int, rng: np.random.Generator) -> Iterator[ImportRow]:
    """Labels of four groups: two prefer short responses, two long ones; one of each prefers lists."""
    texts = [[_text(prompt, which) for which in range(RESPONSES)] for prompt in range(n_prompts)]
    like = np.array(
        [
            [
                (-1) ** (which & 1) * (-1) ** (group & 1) + (-1) ** (which >> 1) * (-1) ** (group >> 1)
                for which in range(RESPONSES)
            ]
            for group in range(4)
        ]
    )
    for person in range(n_people):
        count = n_labels // n_people
        for prompt in rng.choice(n_prompts, count, replace=False).tolist():
            a, b = rng.choice(RESPONSES, 2, replace=False).tolist()
            left = rng.random() < expit(1.5 * (like[person % 4][a] - like[person % 4][b]))
            yield ImportRow(
                0,
                f"Question {prompt}: how would you go about it?",
                texts[prompt][a],
                texts[prompt][b],
                Choice.LEFT if left else Choice.RIGHT,
                f"person {person}",
                key=f"{person}-{prompt}",
                position_known=True,
            )


def _text(prompt: int, which: int) -> str:
    steps = ["Look at the whole first.", "Choose one part of it.", "Try that part, then go on.", "Ask somebody."]
    steps = steps[: 1 + 3 * (which & 1)]
    opening = f"About question {prompt}, in version {which}."
    return opening + "\n\n" + ("\n".join(f"- {step}" for step in steps) if which >> 1 else " ".join(steps))


def publish(session: Session) -> None:
    """Fit everything once, with fewer steps than the trainer takes."""
    from copl_core.insight.layout import answer_space, fit_layout
    from copl_core.install.weights import resolver
    from copl_core.preference.config import GraphConfig
    from copl_core.reward.model import RewardConfig
    from copl_core.snapshots.snapshot import write_snapshot
    from copl_core.trainer.job import Parts, learn_mix
    from copl_core.training.graph_fit import fit_graph
    from copl_core.training.linear_fit import fit_linear
    from copl_core.training.reward_fit import fit_reward
    from copl_core.training.split import hold_out

    data = session.store.training_data(session.id)
    started = time.monotonic()
    phi = measure_many([text for _, text in data.texts()])
    graph = fit_graph(data, phi, GraphConfig.build(members=1, max_steps=40), seed=0)
    report("graph", started)
    started = time.monotonic()
    layout = fit_layout(graph.user_ids, graph.user_vectors @ answer_space(graph), graph.n_labels, seed=0)
    report("map", started)
    started = time.monotonic()
    given = data.labels
    ids = data.user_ids[given.user], data.response_ids[given.left], data.response_ids[given.right]
    learned, kept = hold_out(*ids, share=0.01)
    kept &= given.decided
    config = RewardConfig(backbone="minilm")
    model = fit_reward(
        data.with_labels(given.take(learned)),
        graph.user_vectors,
        config,
        weights=resolver(session.settings.weights),
        time_budget_s=REWARD_SECONDS,
    )
    # The weights for new texts are replaced below: this graph reads style features only, and pages bring all of φ.
    parts = Parts(graph, model, fit_linear(graph, phi), list(data.texts()), phi)
    mix, held_out = learn_mix(given.take(kept), given.take([]), parts)
    report("reward model", started)

    def save(folder: Path) -> None:
        for part, name in ((graph, "graph"), (model, "model")):
            (folder / name).mkdir()
            part.save(folder / name)
        (folder / "mix.json").write_text(
            json.dumps(asdict(replace(mix, graph_new=0.0, text_new=1.0, linear=0.0, linear_new=0.0)))
        )

    metrics = {
        "graph": graph.metrics,
        "held_out": held_out,
        "reward_watermark": data.watermark,
        "kind": "full",
        "seconds": 0.0,
    }
    reward = {
        "fitted_in": "v0001",
        "watermark": data.watermark,
        "backbone": "minilm",
        "config": asdict(config),
        "metrics": held_out,
        "fit": model.metrics,
    }
    write_snapshot(
        session.snapshot_root,
        "v0001",
        graph=graph,
        layout=layout,
        save_reward=save,
        manifest={
            "study": session.id,
            "run": None,
            "kind": "full",
            "watermark": data.watermark,
            "labels": len(given),
            "reward": reward,
            "metrics": metrics,
            "seconds": 0.0,
            "made_at": datetime.now(UTC).isoformat(),
        },
    )
    record = SnapshotRecord("v0001", None, data.watermark, len(given), metrics, datetime.now(UTC))
    session.store.publish(session.id, record, run_id=None)


# ---- the pages


def measure(home: Path, pages: Sequence[str]) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        print(f"{'page':14}{'first visit':>24}{'second visit':>24}   seconds to first content, and to the whole page")
        for name in pages:
            with app(home) as link:
                root, _, token = link.partition("/?")
                visit(browser, link)  # opens the study; not counted
                times = [visit(browser, f"{root}/{name}?{token}") for _ in range(2)]
            print(
                f"{name or 'label':14}" + "".join(f"{first:14.2f}{whole:10.2f}" for first, whole in times), flush=True
            )
        browser.close()


def visit(browser, address: str) -> tuple[float, float]:
    """Seconds until the first content of a page is on screen, and until all of it is drawn; the app is warm."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    started = time.monotonic()
    page.goto(address)
    page.locator(CONTENT).first.wait_for(timeout=120_000)
    first = time.monotonic() - started
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=120_000)
    whole = time.monotonic() - started
    context.close()
    return first, whole


@contextmanager
def app(home: Path) -> Iterator[str]:
    """The owner's link to the app, which runs without a trainer."""
    settings = Settings(home=home)
    store = open_store(settings)
    session = Session(store, settings, store.current_study().id)
    token = access.sign_in_token(session, access.join(session, "Owner", Role.OWNER).id)
    with app_alone(home) as (address, _):
        yield f"{address}/?token={token}"


def report(what: str, started: float) -> None:
    print(f"{what} after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
