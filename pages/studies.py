"""A part of the settings page: simulated people, and the studies of the installation: new ones, imports, exports."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import streamlit as st

from copl_core.records import CoplError, ImportReport, Kind, StudyRecord
from copl_core.study import access, contents
from pages.account import open_study
from pages.common import current, rerun
from pages.members import perform

FILES = "jsonl json csv tsv txt parquet arrow xlsx gz bz2 xz zst".split()  # endings that the browser offers
SHOWN = 10  # lines that were not imported, named one by one


def studies() -> None:
    simulated()
    models()
    st.subheader("Export")
    export()
    st.subheader("A new study")
    st.write("A new study is for invited people only, and its owner is you. Nothing changes in this one.")
    empty, imported = st.columns(2, gap="large")
    with empty:
        new_study()
    with imported:
        import_study()
    newcomers()


def simulated() -> None:
    session, me = current()
    st.subheader("Simulated people")
    included = session.record.include_simulated
    wanted = st.toggle(
        "Include simulated people",
        value=included,
        key="settings-simulated",
        help="When this is off, no page shows them and the next snapshot does not learn from them. Their labels are "
        "kept, so you can switch it on again.",
    )
    if wanted != included:
        access.include_simulated(session, wanted, by=me.id)
        rerun()


def models() -> None:
    """The switch for language models, where the study has any."""
    session, me = current()
    if not any(user.kind == Kind.MODEL for user in access.users(session)):
        return
    st.subheader("Language models")
    wanted = st.toggle(
        "Learn from language models too",
        value=session.record.include_models,
        key="settings-models",
        help="Some labels were made by language models. When this is off, the next snapshot and all votes leave them "
        "out, and only lists show them, marked. Their labels are kept.",
    )
    if wanted != session.record.include_models:
        access.include_models(session, wanted, by=me.id)
        rerun()


def export() -> None:
    session, _ = current()
    st.download_button(
        "Download every label",
        data=lambda: contents.export_file(session),
        file_name=f"{'-'.join(session.record.name.split())}.jsonl.gz",
        mime="application/gzip",
        key="export",
        help="One JSON object per line, compressed: person, pair, sides as shown, choice, time. The file can be "
        "imported again.",
    )


def new_study() -> None:
    session, me = current()
    with st.form("new-study"):
        name = st.text_input("Name of an empty study", key="new-study-name", max_chars=200)
        if st.form_submit_button("Create", key="new-study-make"):
            try:
                made = access.create_study(session, name, browser=st.session_state.get("browser", ""), by=me.id)
            except CoplError as problem:
                st.error(str(problem))
            else:
                open_study(made.id)


def import_study() -> None:
    with st.form("import-study"):
        file = st.file_uploader("A file of pairs or labels", type=FILES, key="import-file")
        name = st.text_input("Name of the study made from it", key="import-name", max_chars=200)
        if st.form_submit_button("Import", key="import-make"):
            if file is None:
                st.error("No file is chosen; choose one of pairs or labels.")
            else:
                run_import(file, name.strip() or Path(file.name).name.partition(".")[0])
    if done := st.session_state.get("imported"):
        show_import(*done)


def run_import(file, name: str) -> None:
    session, me = current()
    problems: list[tuple[int, str]] = []
    st.session_state.pop("imported", None)
    with TemporaryDirectory() as folder, st.spinner("Importing"):
        path = Path(folder) / Path(file.name).name
        path.write_bytes(file.getbuffer())
        try:
            rows = contents.read_file(session, path, problems, by=me.id)
            browser = st.session_state.get("browser", "")
            made, report = contents.import_study(session, name, rows, browser=browser, by=me.id)
        except CoplError as problem:
            st.error(str(problem).replace(str(path), file.name))
            return
    st.session_state["imported"] = (made, report, [*problems, *report.problems])
    rerun()  # the menu begins with the list of studies


def counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def show_import(made: StudyRecord, report: ImportReport, problems: list[tuple[int, str]]) -> None:
    st.success(
        f"{made.name} has {counted(report.labels_new, 'label')}, {counted(report.pairs_new, 'pair')} and "
        f"{report.users_new:,} {'person' if report.users_new == 1 else 'people'}."
    )
    if problems:
        lines = "\n".join(f"- Line {line}: {reason}" for line, reason in problems[:SHOWN])
        more = f"\n- And {len(problems) - SHOWN:,} more." if len(problems) > SHOWN else ""
        were = "was" if len(problems) == 1 else "were"
        st.warning(f"{counted(len(problems), 'line')} {were} not imported; all others were.\n\n{lines}{more}")
    if st.button(f"Open {made.name}", key="open-imported", type="primary"):
        open_study(made.id)


def newcomers() -> None:
    session, _ = current()
    st.subheader("People without a link")
    if access.is_front(session):
        st.write("People who come to the address of the studio without a link see this study.")
        return
    st.write(
        "People who come to the address of the studio without a link see one study. Everybody who has joined another "
        "one stays there."
    )
    st.button(
        "Show them this study",
        key="make-front",
        on_click=perform,
        args=(access.make_front,),
        kwargs={"done": "People without a link now see this study."},
    )
