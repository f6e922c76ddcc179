"""The plan of the code, measured from its source: ``python -m tests.plan`` prints it, the architecture test holds it.

A room is a folder of the product; the loose files of ``copl_core`` are the room "words".  An arrow is an import of any
kind from one room into another.  Rooms are stacked on floors: every arrow runs down; the plan lists those that run up.
``--words`` lists every word of the old dialect instead of the first ten.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("copl", "copl_core", "db", "pages", "web", "streamlit_app.py")
LONG = 60  # lines of a function
# From the ground up.  A room knows rooms of lower floors and nothing of its own floor or above.
FLOORS = (
    ("words",),
    ("formats", "preference", "reward", "db"),
    ("insight", "install"),
    ("training", "snapshots"),
    ("trainer", "demo"),
    ("evaluation", "study"),
    ("serving",),
    ("terminal", "pages"),
    ("web", "copl"),
    ("start page",),
)
# Words that the vocabulary of ``copl_core/records.py`` replaces.  Some are ordinary English; other words say them too.
OLD_WORDS = re.compile(
    r"\b(told|asked|said|heard|foreseen|foretold|foretell|unforeseen|foresight|voices?|strangers?|portraits?|paint|painted"
    r"|firm|firmer|firmly|firmness|judgements?|tastes_of|doors?|crown|_crown|crowned|moved_by|legs|mould|ease|LOUD|NOBODY"
    r"|HONEST|meetings?|standing|Divided|Divisions?|divisions|Lesson|lesson|Blend|Judge|Seat|Said|Offer|Asked|Foretold"
    r"|RoomSettings|set_room|room_settings|practised|believed|paying|Paying|grow|_taken_up|imitation|unlabelled_pairs"
    r"|win_probability|recipes?|Wanted|Trial|Trait|Moved|Forecast|MixOfReasons|tries_of|slips?|anew|whoever|thereof"
    r"|mishaps?|queue_path|rename_user)\b"
)


# Old words that files and links of users hold, each with the file that reads or writes it.
STORED = {
    ("copl_core/preference/config.py", "firmer"),  # setting of a graph in snapshots
    ("copl_core/training/graph_trainer.py", "firm"),  # array of a checkpoint
    ("copl_core/trainer/run_log.py", "said"),  # key of a run's log
    ("copl_core/formats/own.py", "asked"),  # field of an export
    ("db/listing.py", "asked"),  # likewise
    ("tests/formats/test_own.py", "asked"),
    ("pages/people_selection.py", "foreseen"),  # parameter of a link
    ("tests/db/test_round_trip.py", "asked"),
    ("tests/preference/test_config.py", "firmer"),
    ("tests/study/test_contents.py", "asked"),
    ("tests/training/test_checkpoint.py", "said"),
}


def sources(*folders: str) -> list[str]:
    """Python files below folders, or files themselves, as paths relative to the root."""
    found: list[Path] = []
    for folder in folders or PRODUCT:
        path = ROOT / folder
        found += path.rglob("*.py") if path.is_dir() else [path]
    return sorted(str(path.relative_to(ROOT)) for path in found if "migrations" not in path.parts)


def module_of(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "streamlit_app":
        return "start page"
    if parts[0] != "copl_core" or len(parts) > 2:
        return parts[1] if parts[0] == "copl_core" else parts[0]
    if parts[-1] == "__main__":
        return "terminal"
    return parts[1] if len(parts) == 2 and (ROOT / "copl_core" / parts[1]).is_dir() else "words"


def imports(path: str, *, at_start_only: bool = False) -> Iterator[str]:
    """Modules that a file imports, relative ones resolved; ``at_start_only`` leaves out those inside functions."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    inside = {id(n) for function in ast.walk(tree) if isinstance(function, functions) for n in ast.walk(function)}
    for node in ast.walk(tree):
        if at_start_only and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(Path(path).with_suffix("").parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if (ROOT / f"{name.replace('.', '/')}.py").is_file()]
            yield from modules
            if len(modules) < len(names):
                yield module


def graph(paths: Iterable[str]) -> dict[str, set[str]]:
    """Module → modules of the same paths that it imports anywhere, in functions and for type checkers too."""
    known = {module_of(path): path for path in paths}
    return {module: {one for one in imports(path) if one in known and one != module} for module, path in known.items()}


def arrows(edges: dict[str, set[str]]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(room, room) → the imports between them."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for module, targets in sorted(edges.items()):
        for target in sorted(targets):
            if room_of(module) != room_of(target):
                found[room_of(module), room_of(target)].append((module, target))
    return dict(found)


def rising(found: dict[tuple[str, str], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The imports that do not run down a floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return [one for (source, target), every in found.items() if floor[target] >= floor[source] for one in every]


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Sets of two or more modules that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def function_lengths(paths: Iterable[str]) -> list[tuple[int, str]]:
    """(lines, path:name) of every function, longest first."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}"))
    return sorted(found, reverse=True)


def old_words(paths: Iterable[str]) -> list[tuple[str, int, str]]:
    """(path, line, word) of every word of the old dialect, in code, comments and texts alike, but for ``STORED``."""
    return [
        (path, number, match.group())
        for path in paths
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        for match in OLD_WORDS.finditer(line)
        if (path, match.group()) not in STORED
    ]


def tracked_texts() -> list[str]:
    """Every file of the repository whose words count: code, tests, benchmarks, README and its kin."""
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    return [
        path
        for path in listed
        if path.endswith((".py", ".md", "Makefile", ".ci/run"))
        and (ROOT / path).is_file()
        and path not in ("tests/plan.py", "benchmarks/RESULTS.md")
        and "migrations" not in path
    ]


def report_functions(lengths: list[tuple[int, str]]) -> None:
    """Print how long functions are, and name the longest five."""
    lines = [n for n, _ in lengths]
    over = sum(n > LONG for n in lines)
    print(f"Functions: {len(lines)}, median {median(lines):.0f} lines, {over} longer than {LONG}; the longest:")
    for n, name in lengths[:5]:
        print(f"  {n} {name}")


def main() -> int:
    paths = sources()
    edges = graph(paths)
    found = arrows(edges)
    rooms: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        rooms[room_of(module_of(path))].append(path)
    print("Files by room, the highest floor first:")
    for number, floor in reversed(list(enumerate(FLOORS))):
        print(f"  {number}  " + " · ".join(f"{room} {len(rooms[room])}" for room in floor))
    print(f"Arrows between rooms: {sum(map(len, found.values()))} imports in {len(found)} arrows")
    up, around = rising(found), circles(edges)
    print(f"Arrows that run up: {len(up)}", *(f"  {source} → {target}" for source, target in up), sep="\n")
    print(f"Circles: {len(around)}", *("  " + " ↔ ".join(one) for one in around), sep="\n")
    report_functions(function_lengths(paths))
    words = old_words(tracked_texts())
    print(f"Words of the old dialect: {len(words)}")
    for path, number, word in words if "--words" in sys.argv else words[:10]:
        print(f"  {path}:{number}: {word}")
    return 1 if up or around or words else 0


if __name__ == "__main__":
    sys.exit(main())
