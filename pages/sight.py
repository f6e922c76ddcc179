"""Bring a part of the page into sight: what somebody asks for is drawn where they look."""

from __future__ import annotations

import streamlit as st

from pages import scripts


def into_sight(key: str) -> None:
    """Scroll to the element with this key unless its top is on screen already.  Call it once per request."""
    st.session_state["scrolled"] = st.session_state.get("scrolled", 0) + 1
    scripts.run(scripts.INTO_SIGHT, selector=f".st-key-{key}", call=st.session_state["scrolled"])
