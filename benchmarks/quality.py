"""How well CoPL and its peers predict held-out labels, column by column.

    python -m benchmarks.quality --data FOLDER [--columns NAME,…] [--splits N] [--methods a,b | all] [--keep FOLDER]

Each column splits one file of labels into a training and a test file and runs ``python -m copl_core evaluate`` on
them; ``--keep`` keeps these files.  The splits: random ones by (person, response), so that a response of a test label
is in no training label of the same person; unseen prompts, prompts unseen by each user, texts that nobody has labelled,
new users who first give eight labels, and the file's own split.  Small files are split several times.  Numbers are
means over the splits; ± is the standard deviation over splits; the interval is that of a bootstrap over users, averaged
over splits.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from copl_core.records import CoplError, ImportRow
from copl_core.training.split import hold_out

DESCRIPTION = "accuracy on held-out labels of real annotators, CoPL beside its peers"
METHODS = "global,side-length,mf,copl-graph,copl"
SHARE = 0.15  # of labels or prompts that are tested
USERS_SHARE = 0.3  # of users: most have few labels
CONTEXT = 8  # labels that a new user gives first

TEXTS_SHARE = 0.2  # of responses that are tested against each other
TRAIN, TEST, NEITHER = 0, 1, -1

Cut = Callable[[list[dict], int], np.ndarray]  # rows, seed → TRAIN, TEST or NEITHER of each row; a mask is of test rows
Ends = tuple[tuple[str, str], tuple[str, str]]  # (prompt, response) of both responses of a label


def random_labels(rows: list[dict], seed: int) -> np.ndarray:
    return by_person_and_response([row["annotator"] for row in rows], _ends(rows), SHARE, seed)


def by_person_and_response(users: Sequence[str], ends: Sequence[Ends], share: float, seed: int) -> np.ndarray:
    """TRAIN, TEST or NEITHER (N,): no response of a test label occurs in a training label of the same user.

    Args:
        users: (N,) names.
        ends: (N,) the two responses of each label, each with its prompt.
        share: of each user's responses that are held out; labels about one of them and another are in neither part.
    """
    number = {text: i for i, text in enumerate(sorted({text for both in ends for text in both}))}
    left, right = np.array([[number[text] for text in both] for both in ends], np.int64).reshape(-1, 2).T
    learned, tested = hold_out(np.unique(users, return_inverse=True)[1], left, right, share, seed)
    return np.where(tested, TEST, np.where(learned, TRAIN, NEITHER))


def new_prompts(rows: list[dict], seed: int) -> np.ndarray:
    return _of_some(rows, seed, SHARE, lambda row: row["prompt"])


def new_users(rows: list[dict], seed: int) -> np.ndarray:
    return _of_some(rows, seed, USERS_SHARE, lambda row: row["annotator"])


def prompts_unseen_by_the_user(rows: list[dict], seed: int) -> np.ndarray:
    drawn = (zlib.crc32(f"{seed}|{row['annotator']}|{row['prompt']}".encode()) / 2**32 for row in rows)
    return np.fromiter(drawn, float, len(rows)) < SHARE


def new_texts(rows: list[dict], seed: int) -> np.ndarray:
    """Labels about two held-out responses are tested; labels about one of them are left out."""
    ends = _ends(rows)
    names = sorted({text for both in ends for text in both})
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[i] for i in order[: max(1, round(TEXTS_SHARE * len(names)))]}
    n_new = np.array([sum(text in chosen for text in both) for both in ends])
    return np.array([TRAIN, NEITHER, TEST])[n_new]


def parts_of(rows: Sequence[ImportRow], share: float, seed: int) -> np.ndarray:
    """``by_person_and_response`` of read rows, which all have an annotator."""
    ends = [((row.prompt, row.response_a), (row.prompt, row.response_b)) for row in rows]
    return by_person_and_response([row.annotator or "" for row in rows], ends, share, seed)


def _ends(rows: list[dict]) -> list[Ends]:
    """The two responses of each row, each with its prompt."""
    return [((row["prompt"], row["response_a"]), (row["prompt"], row["response_b"])) for row in rows]


def own_split(rows: list[dict], seed: int) -> np.ndarray:
    return np.array([row.get("split") == "test" for row in rows])


def _of_some(rows: list[dict], seed: int, share: float, key: Callable[[dict], str]) -> np.ndarray:
    names = sorted({key(row) for row in rows})
    drawn = np.random.default_rng(seed).permutation(len(names))[: max(1, round(share * len(names)))]
    chosen = {names[i] for i in drawn}
    return np.array([key(row) in chosen for row in rows])


@dataclass(frozen=True)
class Column:
    file: str
    cut: Cut
    context: int = 0
    splits: int = 1  # how often a small file is split


COLUMNS = {
    "llmfao-random": Column("llmfao", random_labels, splits=3),
    "llmfao-prompts-new-to-the-person": Column("llmfao", prompts_unseen_by_the_user, splits=3),
    "llmfao-new-prompts": Column("llmfao", new_prompts, splits=3),
    "llmfao-new-people": Column("llmfao", new_users, CONTEXT, splits=3),
    "ukpconvarg-random": Column("ukpconvarg", random_labels),
    "polis-own-split": Column("polis_bowling_green", own_split),
    "polis_more-own-split": Column("polis_more", own_split),
    "polis_more-new-texts": Column("polis_more", new_texts, splits=3),
    "polis_more-new-people": Column("polis_more", new_users, CONTEXT, splits=3),
    "remesh-random": Column("remesh_polarized", random_labels, splits=3),
    "remesh-new-texts": Column("remesh_polarized", new_texts, splits=3),
    "remesh-new-people": Column("remesh_polarized", new_users, CONTEXT, splits=3),
}


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    columns = [name.strip() for name in arguments.columns.split(",")]
    if unknown := [name for name in columns if name not in COLUMNS]:
        print(f"There is no column {unknown[0]}; choose from {', '.join(COLUMNS)}.", file=sys.stderr)
        return 2
    if arguments.data is not None and not arguments.data.exists():
        print(f"--data is {arguments.data}, which does not exist; name a folder with files of labels.", file=sys.stderr)
        return 2
    if arguments.data is None:
        print("Nothing is measured: give the folder of the files of labels with --data.")
        return 0
    options = [
        "--methods",
        arguments.methods,
        "--threads",
        str(arguments.threads),
        "--reward-seconds",
        str(arguments.reward_seconds),
        *["--controls"] * arguments.controls,
    ]
    with contextlib.nullcontext(arguments.keep) if arguments.keep else tempfile.TemporaryDirectory() as folder:
        for name in columns:
            column = COLUMNS[name]
            path = arguments.data / f"{column.file}.jsonl.gz"
            if not path.is_file():
                print(f"{name}: skipped, since {arguments.data} has no {path.name}.\n")
                continue
            try:
                splits = arguments.splits or column.splits
                reports = list(measure(column, path, Path(folder) / name, splits, options, arguments.people))
            except CoplError as problem:
                print(f"{name} is not measured: {problem}", file=sys.stderr)
                return 2
            print(f"{table(name, reports)}\n", flush=True)
            if arguments.keep:
                (Path(folder) / name / "reports.json").write_text(json.dumps(reports, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with llmfao.jsonl.gz, ukpconvarg.jsonl.gz, "
        "polis_bowling_green.jsonl.gz, polis_more.jsonl.gz, remesh_polarized.jsonl.gz; missing files are skipped",
    )
    parser.add_argument("--columns", default=",".join(COLUMNS), help="some of the columns")
    parser.add_argument(
        "--splits", type=int, default=0, help="splits of each column (default: 3 of small files, else 1)"
    )
    parser.add_argument("--methods", default=METHODS, help="all, or names of methods of evaluate")
    parser.add_argument("--people", type=int, default=0, help="number of users to draw from each file; 0 takes all")
    parser.add_argument(
        "--reward-seconds", type=float, default=240, help="time after which the text reward is cut (default 240)"
    )
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--controls", action="store_true", help="also swap people and reverse labels (takes twice as long)"
    )
    parser.add_argument("--keep", type=Path, help="folder for the training and test files and the full reports")
    return parser


def measure(
    column: Column, path: Path, folder: Path, splits: int, options: list[str], users: int = 0
) -> Iterator[dict]:
    """The report of ``evaluate`` for each split; seeds count from 1."""
    from copl_core.evaluation import evaluate

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(1, splits + 1):
        some = draw_users(rows, users, seed)
        side = column.cut(some, seed)
        train, test = folder / f"train-{seed}.jsonl.gz", folder / f"test-{seed}.jsonl.gz"
        out = folder / f"report-{seed}.json"
        for path_of, wanted in ((train, TRAIN), (test, TEST)):
            write(path_of, [row for row, found in zip(some, side, strict=True) if found == wanted])
        with contextlib.redirect_stdout(io.StringIO()):
            evaluate.main(
                parser.parse_args(
                    [
                        str(train),
                        str(test),
                        "--context",
                        str(column.context),
                        "--seed",
                        str(seed),
                        "--json",
                        str(out),
                        *options,
                    ]
                )
            )
        yield json.loads(out.read_text())


def draw_users(rows: list[dict], n_users: int, seed: int) -> list[dict]:
    names = sorted({row["annotator"] for row in rows})
    if not 0 < n_users < len(names):
        return rows
    kept = {names[i] for i in np.random.default_rng(seed).permutation(len(names))[:n_users]}
    return [row for row in rows if row["annotator"] in kept]


def write(path: Path, rows: list[dict]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(name: str, reports: list[dict]) -> str:
    """The table of one column."""
    methods = list(reports[0]["methods"])

    def over_splits(read: Callable[[dict], float]) -> dict[str, np.ndarray]:
        return {method: np.array([read(report["methods"][method]) for report in reports]) for method in methods}

    accuracy, loss, calibration, seconds = (
        over_splits(lambda row, key=key: row[key]) for key in ("accuracy", "log_loss", "calibration_error", "seconds")
    )
    low, high = (over_splits(lambda row, end=end: row["accuracy_interval"][end]) for end in (0, 1))
    best = max(methods, key=lambda method: accuracy[method].mean())
    tested = np.mean([report["test_decided"] for report in reports])
    lines = [
        f"{name}: {len(reports)} split{'s' if len(reports) > 1 else ''}, {reports[0]['train_labels']:,} training "
        f"labels and {tested:,.0f} test labels on average",
        f"{'':<13}{'accuracy':>9} {'±splits':>7} {'95 % users':>13} {'to best, points':>16} {'log-loss':>9} "
        f"{'cal. err.':>9} {'seconds':>8}",
    ]
    for method in sorted(methods, key=lambda method: -accuracy[method].mean()):
        behind = 100 * (accuracy[best] - accuracy[method])
        spread = f"{accuracy[method].std(ddof=1):.3f}" if len(reports) > 1 else "–"
        distance = (
            "best"
            if method == best
            else f"{-behind.mean():+.1f}"
            + (f" ± {behind.std(ddof=1):.1f}" if len(reports) > 1 else _noise(reports[0], method, best))
        )
        lines.append(
            f"{method:<13}{accuracy[method].mean():>9.3f} {spread:>7} "
            f"{low[method].mean():>6.3f}–{high[method].mean():.3f} {distance:>16} {loss[method].mean():>9.3f} "
            f"{calibration[method].mean():>9.3f} {seconds[method].mean():>8.1f}"
        )
    lines += [
        line for method in methods for line in controls(method, [report["methods"][method] for report in reports])
    ]
    return "\n".join(lines)


def controls(method: str, rows: list[dict]) -> list[str]:
    """What the controls of ``evaluate`` show for a method, as means over its splits; nothing without them."""
    if "label_flip" not in rows[0]:
        return []

    def mean(read: Callable[[dict], float]) -> float:
        return float(np.mean([read(row) for row in rows]))

    lines = [
        f"{method}, controls: with another person's vector {100 * mean(lambda row: row['user_swap']['gain']):+.1f} "
        f"points over global (own {100 * mean(lambda row: row['user_swap']['gain_own']):+.1f}); learned from reversed "
        f"labels {mean(lambda row: row['label_flip']['accuracy']):.3f}, one minus its accuracy "
        f"{mean(lambda row: row['label_flip']['mirror']):.3f}"
    ]
    if all(row.get("fold_in_flip") for row in rows):
        turned, before, after = (
            mean(lambda row, key=key: row["fold_in_flip"][key]) for key in ("turned", "accuracy", "accuracy_flipped")
        )
        lines.append(
            f"{method}, labels of new people reversed: {turned:.0%} of the predictions about other answers turn, "
            f"accuracy {before:.3f} to {after:.3f}"
        )
    return lines


def _noise(report: dict, method: str, best: str) -> str:
    within = report["best"] == best and report["methods"][method]["within_noise_of_best"]
    return " (noise)" if within else ""


if __name__ == "__main__":
    sys.exit(main())
