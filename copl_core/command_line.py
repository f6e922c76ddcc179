"""What to type in a terminal to run a command of this installation."""

from __future__ import annotations

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]


def command(verb: str) -> str:
    """``copl VERB`` where the package is installed with its script; else the Python of this process, whose path is one
    of the checkout's folder if it lies there.
    """
    python = Path(sys.executable)
    if python.with_name("copl").exists():
        return f"copl {verb}"
    return f"{python.relative_to(_CHECKOUT) if python.is_relative_to(_CHECKOUT) else python} -m copl_core {verb}"
