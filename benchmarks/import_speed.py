"""How long an import of many labels takes from the terminal, and how much memory, from files of several kinds.

    python -m benchmarks.import_speed [--rows N] [--kinds own,csv,…]

Each file has one label per row, or one battle, or answers that are ranked, with answers of some hundred characters.
Each is imported into an empty SQLite installation by the command itself, in a process of its own, and then once more:
the second import adds nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import psutil

DESCRIPTION = "seconds and memory of an import of 100,000 rows, from files of several kinds"
ROOT = Path(__file__).resolve().parents[1]
DEFAULT = "own,csv,parquet,excel,trl,ultrafeedback"
SECONDS, MEGABYTES = 20, 1024  # the aims for 100,000 rows
WORDS = "the a of and tide sand wave harbour summit ridge snow boat valley peak rock stone rain light".split()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kinds", default=DEFAULT, help=f"which of {', '.join(KINDS)}")
    arguments = parser.parse_args(argv)
    print(f"{arguments.rows:,} rows; aims for 100,000: {SECONDS} s, {MEGABYTES} MiB")
    print(f"{'file':14}{'MB':>6}{'labels':>9}{'import':>9}{'again':>9}{'memory':>10}")
    for kind in arguments.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print(line(kind, Path(folder), arguments.rows), flush=True)
    return 0


def line(kind: str, folder: Path, n_rows: int) -> str:
    path = KINDS[kind](folder, n_rows)
    first, again = (timed_import(path, folder) for _ in range(2))
    labels = json.loads((folder / "report.json").read_text())["labels"]
    memory = max(first[1], again[1]) / 2**20
    size = path.stat().st_size / 1e6
    return f"{kind:14}{size:6.0f}{labels:9,}{first[0]:7.1f} s{again[0]:7.1f} s{memory:6.0f} MiB"


def timed_import(path: Path, folder: Path) -> tuple[float, int]:
    """(seconds, bytes of memory at most) of the command."""
    command = [sys.executable, "-m", "copl_core", "import", str(path), "--annotator", "panel"]
    command += ["--json", str(folder / "report.json")]
    environment = os.environ | {"COPL_HOME": str(folder / "home")}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    watched, most = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            most = max(most, watched.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.02)
    if process.wait() != 0:
        raise SystemExit(f"the import of {path.name} ended with {process.returncode}")
    return time.perf_counter() - start, most


# ---- files


def rows(n: int) -> Iterator[dict[str, Any]]:
    """Labels of a thousand people on prompts with four answers each."""
    rng = np.random.default_rng(0)
    for number in range(n):
        prompt = number // 6
        a, b = rng.choice(4, 2, replace=False).tolist()
        yield {
            "prompt": f"Question {prompt}: {text(prompt, 20)}?",
            "response_a": text(prompt * 4 + a, 60),
            "response_b": text(prompt * 4 + b, 60),
            "choice": "ab"[int(rng.integers(2))],
            "annotator": f"person {int(rng.integers(1000))}",
            "pair_id": f"p{number}",
            "language": "en",
        }


def text(seed: int, n_words: int) -> str:
    return " ".join(WORDS[(seed * 7 + i * i) % len(WORDS)] for i in range(n_words)) + f" {seed}"


def jsonl(path: Path, made: Iterator[dict[str, Any]]) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in made)
    return path


def own(folder: Path, n: int) -> Path:
    return jsonl(folder / "labels.jsonl", rows(n))


def array(folder: Path, n: int) -> Path:
    (folder / "labels.json").write_text(json.dumps(list(rows(n))))
    return folder / "labels.json"


def table(folder: Path, n: int) -> Path:
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(next(rows(1))))
        writer.writeheader()
        writer.writerows(rows(n))
    return folder / "labels.csv"


def parquet(folder: Path, n: int) -> Path:
    import pandas as pd

    pd.DataFrame(rows(n)).to_parquet(folder / "labels.parquet", index=False)
    return folder / "labels.parquet"


def excel(folder: Path, n: int) -> Path:
    names = list(next(rows(1)))
    write_workbook(folder / "labels.xlsx", {"Labels": chain([names], (list(row.values()) for row in rows(n)))})
    return folder / "labels.xlsx"


def write_workbook(path: Path, sheets: dict[str, Iterable[list[Any]]]) -> None:
    """A workbook as Excel writes one, as far as a reader of its cells needs it."""
    book = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    numbered = list(enumerate(sheets, 1))
    names = "".join(f'<sheet name={quoteattr(name)} sheetId="{n}" r:id="rId{n}"/>' for n, name in numbered)
    parts = "".join(
        f'<Relationship Id="rId{n}" Type="{office}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n, _ in numbered
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/></Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="rId1" Type="{office}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        file.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{book}" xmlns:r="{office}"><sheets>{names}</sheets></workbook>'
        )
        file.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">{parts}</Relationships>'
        )
        for n, name in numbered:
            with file.open(f"xl/worksheets/sheet{n}.xml", "w") as sheet:
                sheet.write(f'<worksheet xmlns="{book}"><sheetData>'.encode())
                sheet.writelines(f"<row>{''.join(map(cell, row))}</row>".encode() for row in sheets[name])
                sheet.write(b"</sheetData></worksheet>")


def cell(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'


def chosen_rejected(folder: Path, n: int) -> Path:
    def made() -> Iterator[dict[str, Any]]:
        for row in rows(n):
            prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["prompt"]}]
            sides = row["response_a"], row["response_b"]
            chosen, rejected = ([*prompt, {"role": "assistant", "content": side}] for side in sides)
            yield {"chosen": chosen, "rejected": rejected, "user_id": row["annotator"]}

    return jsonl(folder / "trl.jsonl", made())


def battles(folder: Path, n: int) -> Path:
    def made() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(rows(n)):
            question = {"role": "user", "content": row["prompt"]}
            sides = {
                f"conversation_{s}": [question, {"role": "assistant", "content": row[f"response_{s}"]}] for s in "ab"
            }
            winner = {"winner": f"model_{row['choice']}", "judge": row["annotator"], "turn": 1, "question_id": number}
            yield {"model_a": "m1", "model_b": "m2", "tstamp": 1.7e9 + number} | winner | sides

    return jsonl(folder / "battles.jsonl", made())


def ratings(folder: Path, n: int) -> Path:
    def made() -> Iterator[dict[str, Any]]:
        for number in range(n // 6):  # four answers make six pairs
            completions = [
                {"model": f"m{i}", "response": text(number * 4 + i, 60), "fine-grained_score": float(i % 3)}
                for i in range(4)
            ]
            yield {"instruction": f"Question {number}: {text(number, 20)}?", "completions": completions}

    return jsonl(folder / "ratings.jsonl", made())


KINDS: dict[str, Callable[[Path, int], Path]] = {
    "own": own,
    "array": array,
    "csv": table,
    "parquet": parquet,
    "excel": excel,
    "trl": chosen_rejected,
    "battles": battles,
    "ultrafeedback": ratings,
}

if __name__ == "__main__":
    sys.exit(main())
