"""The logs of the app's process as JSON: streamlit and its server have handlers of their own."""

from __future__ import annotations

import logging
from contextlib import suppress

import streamlit.logger

from copl_core import logs
from copl_core.config import Settings
from copl_core.records import CoplError


def start_logs() -> None:
    """Let every logger of this process write one JSON object per line, if the settings say so."""
    with suppress(CoplError):  # the pages say what is wrong with the settings
        if Settings.from_environment().log == "json":
            _write_json()


def _write_json() -> None:
    logs.start("json")
    streamlit.logger.setup_formatter = _without_handler
    streamlit.logger.update_formatter()  # of all loggers so far, those of the web server too


def _without_handler(logger: logging.Logger) -> None:
    """In place of streamlit's function: its loggers hand what they log to the root."""
    logger.handlers.clear()
    logger.propagate = True
