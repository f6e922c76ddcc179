"""What a page shows where its script failed: a sentence, and nothing of the program."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from copl_core.records import CoplError
from pages.common import show_error


def show_failure(problem: Exception) -> bool:
    """Show a sentence in place of an error that no page has caught; streamlit has logged its traceback.

    Returns:
        True: nothing else is shown.
    """
    if isinstance(problem, CoplError):
        show_error(problem)
    else:
        now = datetime.now(UTC)
        st.error(
            f"This page failed ({type(problem).__name__}, {now:%Y-%m-%d %H:%M:%S} UTC). Reload it. If it fails again, "
            "give this line to the person who runs the studio: the log of the app has the rest."
        )
    return True
