"""What an installed studio depends on, read from the lists of requirements; pyproject.toml says what a wheel holds.

The lists name the versions that were tested together.  In the wheel they are lower bounds, since an environment that
other tools share cannot keep one exact version of everything; `pip install . -c requirements.txt` takes exactly those.
"""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

EXTRAS = {
    "postgres": ("psycopg",),
    "oidc": ("authlib",),
    "hub": ("datasets",),
    "s3": ("s3fs",),
    "docs": ("mkdocs", "mkdocs-material"),
}


class Requirements(MetadataHookInterface):
    """Fills in ``dependencies`` and ``optional-dependencies``."""

    def update(self, metadata: dict) -> None:
        root = Path(self.root)
        metadata["dependencies"] = lower_bounds(root / "requirements.txt")
        tests = lower_bounds(root / "requirements-tests.txt")
        named = {name: [line for line in tests if package(line) in packages] for name, packages in EXTRAS.items()}
        metadata["optional-dependencies"] = {"tests": tests, **named}


def lower_bounds(path: Path) -> list[str]:
    """The packages of a list, without its comments and the lists that it includes."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line.replace("==", ">=") for line in lines if line and not line.startswith("-")]


def package(requirement: str) -> str:
    return re.split(r"[\[><=]", requirement)[0]
