"""A part of the settings page: the whole study as one file, and a new study from such a file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import bundle
from pages.account import open_study
from pages.common import current, download, rerun
from pages.texts import literal


def bundle_part() -> None:
    st.subheader("A study in one file")
    st.write(
        "The file holds everything of a study: people, texts, labels, guidelines, settings, record and champion. It "
        "holds no secrets: people sign in to a restored study with a new link or their e-mail address."
    )
    downloading()
    restoring()
    if made := st.session_state.get("restored"):
        st.success(f"{literal(made.name)} is restored, and you are one of its owners.")
        if st.button(f"Open {literal(made.name)}", key="open-restored", type="primary"):
            open_study(made.id)


def downloading() -> None:
    bundle_button("bundle-download")


def bundle_button(key: str) -> None:
    session, _ = current()
    st.download_button(
        "Download this study",
        data=download(lambda session, me: bundle.bundle_file(session, by=me.id)),
        file_name=f"{'-'.join(session.record.name.split())}.zip",
        mime="application/zip",
        key=key,
        help="People can go on labelling: the file is the study at this moment. For a study of more than a million "
        "labels, use `backup` in a terminal.",
    )


def restoring() -> None:
    with st.form("restore"):
        file = st.file_uploader("Restore a study", type=["zip"], key="bundle-file")
        name = st.text_input("Name of the restored study", key="bundle-name", max_chars=200,
                             placeholder="as in the file")  # fmt: skip
        if st.form_submit_button("Restore", key="bundle-restore"):
            st.session_state.pop("restored", None)
            if file is None:
                st.error("There is no file yet; choose one that was downloaded here or written by `backup`.")
            else:
                restore(file, name)


def restore(file: Any, name: str) -> None:
    session, me = current()
    with TemporaryDirectory(prefix="copl-restore-") as folder:
        path = Path(folder) / "bundle.zip"
        path.write_bytes(file.getbuffer())
        try:
            with st.spinner("Restoring"):
                browser = st.session_state.get("browser", "")
                made, _ = bundle.restore(session, path, name, browser=browser, by=me.id)
        except CoplError as problem:
            st.error(literal(str(problem).replace(str(path), file.name)))
            return
    st.session_state["restored"] = made
    rerun()  # the menu begins with the list of studies
