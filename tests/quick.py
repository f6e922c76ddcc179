"""``make quick``: the tests of what changed since the last commit, on a branch since it left main.

A file leads to the test file of its name, or to all tests of its room where there is none.  The architecture test runs
always; tests in a browser, slow ones and those that need weights never.  Whatever else a change breaks, ``make test``
finds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.plan import ROOT, module_of, room_of

ALWAYS = "tests/test_architecture.py"
ROOMS = {"words": ["tests/study", "tests/test_ids.py", "tests/test_features.py"], "terminal": ["tests/test_cli.py"]}
ROOMS["start page"] = ROOMS["web"] = ["tests/pages", "tests/web"]
README = {"README.md", "requirements.txt", "requirements-tests.txt", "streamlit_app.py"}
README |= {"copl_core/config.py", "copl_core/__main__.py", "copl/__init__.py", "mkdocs.yml"}
SKIPPED = "not browser and not slow and not weights"


def changed(root: Path = ROOT) -> list[str]:
    """Paths that differ from the commit where this branch left main, new files included; on main, from the last commit.

    Raises:
        subprocess.CalledProcessError: ``root`` is not a git repository with a commit.
    """
    left_main = subprocess.run(["git", "merge-base", "main", "HEAD"], cwd=root, capture_output=True, text=True)
    base = left_main.stdout.strip() if left_main.returncode == 0 else "HEAD"
    return sorted({*_git(root, "diff", "--name-only", base), *_git(root, "ls-files", "--others", "--exclude-standard")})


def leads_to(path: str) -> list[str]:
    """Test files or folders for a changed file, as paths relative to the root; none for a file without a room."""
    found = ["tests/test_docs.py", "tests/test_readme.py"] if path in README or path.startswith("docs/") else []
    if path.startswith("tests/e2e/") or not path.endswith(".py"):
        return found
    if path.startswith("tests/"):
        folder = str(Path(path).parent)
        return [path] if Path(path).name.startswith("test_") else [folder] if folder != "tests" else ["tests/study"]
    if "migrations" in path:
        return ["tests/db/test_migrations.py"]
    room = room_of(module_of(path))
    own = [f"tests/{room}/test_{Path(path).stem}.py", f"tests/test_{Path(path).stem}.py"]
    own = [test for test in own if (ROOT / test).is_file()]
    return found + (own or ROOMS.get(room, [f"tests/{room}"]))


def chosen(paths: Iterable[str]) -> list[str]:
    """Everything to run for the changed paths that exists, without files whose folder is there too."""
    every = {ALWAYS, *(test for path in paths for test in leads_to(path))}
    return sorted(test for test in every if (ROOT / test).exists() and str(Path(test).parent) not in every)


def _git(root: Path, *command: str) -> list[str]:
    return subprocess.check_output(["git", *command], cwd=root, text=True).splitlines()


def main() -> int:
    tests = chosen(changed())
    print("Testing", *tests)
    processes = ["-n", "2"] if len(tests) > 2 or any((ROOT / test).is_dir() for test in tests) else []
    return subprocess.call([sys.executable, "-m", "pytest", "-q", "-m", SKIPPED, *processes, *tests, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
