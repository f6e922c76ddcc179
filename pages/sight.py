"""Bring a part of the page into sight: what somebody asks for is drawn where they look."""

from __future__ import annotations

import json

import streamlit as st


def into_sight(key: str) -> None:
    """Scroll to the element with this key unless its top is on screen already.  Call it once per request.

    The script runs again whenever its text changes, so a counter makes each call a new text.
    """
    st.session_state["scrolled"] = st.session_state.get("scrolled", 0) + 1
    number, selector = st.session_state["scrolled"], json.dumps(f".st-key-{key}")
    st.html(
        f"""<script>/* {number} */
        for (const wait of [150, 900]) setTimeout(() => {{  // once more after the page has found its shape
          const found = document.querySelector({selector});
          if (!found) return;
          found.style.scrollMarginTop = "70px";
          const top = found.getBoundingClientRect().top;
          if (top < 60 || top > window.innerHeight * 0.4) found.scrollIntoView({{behavior: "smooth", block: "start"}});
        }}, wait);
        </script>""",
        unsafe_allow_javascript=True,
    )
