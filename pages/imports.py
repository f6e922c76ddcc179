"""A part of the settings page: files of pairs and labels, from any tool, looked at before they are imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from copl_core.records import Choice, CoplError, ImportReport, ImportRow, LeftOut, StudyRecord, counted
from copl_core.study import contents, labelling
from pages.account import open_study
from pages.common import current, listing, person_name, rerun
from pages.sight import into_sight
from pages.texts import brief, draw_prompt, draw_response, literal

FILES = "jsonl json csv tsv txt parquet arrow xlsx xls ods gz bz2 xz zst".split()  # endings that the browser offers
SHOWN = 10  # rows of a preview, and lines that are not imported, named one by one
STEP = 500  # rows between two movements of the bar
COLUMNS = {
    "prompt": "Question",
    "response_a": "Answer A",
    "response_b": "Answer B",
    "choice": "Choice",
    "annotator": "Annotator",
    "system": "System text",
    "reason": "Reason",
    "time": "Time",
}
CHOICES = {Choice.LEFT: "A", Choice.RIGHT: "B", Choice.TIE: "tie", Choice.BOTH_BAD: "both bad", None: ""}
CODES = {"a": "A is better", "b": "B is better", "tie": "Tie", "both_bad": "Both are bad"}
_NEEDS = "prompt, response_a, response_b and, if a row is a label, choice and annotator"
_NEEDS_HERE = "a question, an answer A, an answer B and, if a row is a label, a choice and an annotator"
_VALUE = re.compile(r"\b(prompt|response_a|response_b|choice|annotator)(?= (?:is|are|has|holds) )")
_OPTIONS = re.compile(r" \((?:add )?--(?:[^()]|\([^()]*\))*\)")
# What a price (“$5 or $6”) is not
_TEX = re.compile(r"\\\(.+?\\\)|\\\[.+?\\\]|\$\$.+?\$\$|\$[^$\n]*[\\^_{][^$\n]*\$", re.DOTALL)
PASTED, UPLOADED, ON_SERVER = "Pasted text", "A file", "A file on this server"


def import_part() -> None:
    """Choose a file, see what it holds, say what it does not say itself, and import it."""
    st.subheader("Import")
    st.write("Pairs and labels of many tools and data sets are recognised. Nothing changes before you press Import.")
    with st.container(border=True, key="import"):
        if st.session_state.pop("import wanted", False):
            into_sight("import")
        if path := source():
            look(path)
    if done := st.session_state.get("imported"):
        show_import(*done)


# ---- the file


def source() -> Path | None:
    """The file that the visitor chose or pasted, kept on this machine while the page is open."""
    ways = [UPLOADED, PASTED, ON_SERVER]
    how = st.segmented_control("From", ways, default=UPLOADED, required=True, key="import-from")
    if how == ON_SERVER:
        return on_server(st.text_input("Name of a file, or of a saved data set", key="import-path"))
    if how == PASTED:
        text = st.text_area("Rows, as JSON lines or as a table with a header", key="import-text", height=160)
        return kept("pasted rows", text.encode(), hash(text)) if text.strip() else None
    file = st.file_uploader("A file of pairs or labels", type=FILES, key="import-file")
    return None if file is None else kept(Path(file.name).name, file.getbuffer(), file.file_id)


def kept(name: str, content: bytes | memoryview, mark: object) -> Path:
    """The path of a chosen file; it is written once, and goes when another one is chosen."""
    if is_new(mark):
        folder = TemporaryDirectory(prefix="copl-import-")
        (Path(folder.name) / name).write_bytes(content)
        st.session_state["import-kept"] = (mark, folder)
    return Path(st.session_state["import-kept"][1].name) / name


def on_server(text: str) -> Path | None:
    """A file that an owner names in the folder for it; it stays where it is."""
    session, me = current()
    st.caption(f"Files for this lie in {literal(str(contents.imports_folder(session)))} on the studio's machine.")
    if not text.strip():
        return None
    try:
        path, state = contents.server_file(session, text, by=me.id)
    except CoplError as problem:
        st.error(str(problem))
        return None
    if is_new((str(path), state)):
        st.session_state["import-kept"] = ((str(path), state), None)
    return path


def is_new(mark: object) -> bool:
    """Whether another file is chosen than before; what belongs to the other one is forgotten then."""
    before = st.session_state.get("import-kept")
    if before is None or before[0] != mark:
        for key in [key for key in st.session_state if str(key).startswith(("import-column-", "import-code-"))]:
            del st.session_state[key]  # they belong to the columns of the other file
        for key in ("import-opened", "import-fields", "import-unclear", "import-name", "imported"):
            st.session_state.pop(key, None)
        return True
    return False


def look(path: Path) -> None:
    """What the file holds, and the button that imports it."""
    annotator = st.text_input(
        "Whose labels they are, where rows do not say it",
        key="import-annotator",
        max_chars=200,
        help="A name for the person or the model. Rows that name their annotator keep it.",
    )
    maps = columns(path)
    try:
        file, first = opened(path, maps, annotator)
    except CoplError as problem:
        show = st.warning if fields(path) else st.error  # nothing is wrong with a file whose columns are to be named
        show(in_this_form(str(problem).replace(str(path), path.name)))
        if not st.session_state.get("import-unclear"):
            st.session_state["import-unclear"] = True
            rerun()  # the columns open
        return
    report(file)
    preview(first)
    target(file, path)


def in_this_form(sentence: str) -> str:
    """A sentence without the options of the terminal in brackets, for which the page has fields, and with the names of
    these fields.
    """
    sentence = _OPTIONS.sub("", sentence).replace(_NEEDS, _NEEDS_HERE)
    return _VALUE.sub(lambda found: COLUMNS[found[1]], sentence)


def opened(path: Path, maps: list[str], annotator: str) -> tuple[Any, list[ImportRow]]:
    """The opened file and its first rows; it is read once for one set of options."""
    session, me = current()
    key = (str(path), tuple(maps), annotator)
    before = st.session_state.get("import-opened")
    if before is None or before[0] != key:
        with st.spinner("Reading the file"):
            file = contents.open_import(session, path, maps, annotator, by=me.id)
            first = list(islice(file.rows(), SHOWN))
        st.session_state["import-opened"] = before = (key, file, first)
    return before[1], before[2]


def fields(path: Path) -> list[str]:
    """Names of the fields of the file, which are read once; none where it cannot be taken."""
    session, me = current()
    if "import-fields" not in st.session_state:
        try:
            found = list(contents.fields_of_file(session, path, by=me.id))
        except CoplError:
            found = []
        st.session_state["import-fields"] = found
    return st.session_state["import-fields"]


def columns(path: Path) -> list[str]:
    """Fields and values that are mapped by hand, as the terminal takes them (``choice=winner``)."""
    if not (names := fields(path)):
        return []  # the sentence about the file follows
    maps = []
    unclear = st.session_state.get("import-unclear", False)
    key = "import-columns-open" if unclear else "import-columns"  # a browser opens only what is new to it
    with st.expander("Columns and values, where they are not recognised", expanded=unclear, key=key):
        for number, (ours, title) in enumerate(COLUMNS.items()):
            if number % 4 == 0:
                cells = st.columns(4)  # row by row: a phone shows them below each other
            with cells[number % 4]:
                chosen = st.selectbox(
                    title, names, index=None, key=f"import-column-{ours}", placeholder="As recognised"
                )
                maps += [f"{ours}={chosen}"] if chosen else []
        cells = st.columns(4)
        for cell, (choice, title) in zip(cells, CODES.items(), strict=True):
            with cell:
                value = st.text_input(f"Value for “{title}”", key=f"import-code-{choice}", max_chars=100).strip()
                maps += [f"{choice}={value}"] if value else []
    return maps


# ---- what it holds


def report(file: Any) -> None:
    survey = file.survey
    models = f" ({survey.by_models:,} by language models)" if survey.by_models else ""
    labels = f"{counted(survey.labels, 'label')}{models} of {who(survey.users, survey.models)}"
    st.markdown(
        f"**{file.format.title}** ({file.container.kind}, {counted(survey.rows, file.container.unit)}): "
        f"{labels} on {labelled_of(survey.labelled_pairs, survey.pairs)}."
    )
    if survey.skipped.n:
        st.warning(problems_in_words(file, survey.skipped, done=False))
    if survey.notes:
        st.info(listed([in_this_form(note) for note in survey.notes], survey.n_notes))
    if on_strength := file.on_strength():
        st.caption(on_strength)
    if survey.ignored_fields:
        fields = ", ".join(f"{literal(name)} ({n:,})" for name, n in list(survey.ignored_fields.items())[:30])
        st.caption(f"Nothing is learned from these fields; they are kept and exported again: {fields}.")


def labelled_of(labelled: int, pairs: int) -> str:
    """The pairs of a file, and how many of them the labels are on where some have none."""
    whole = counted(pairs, "pair")
    return f"{labelled:,} of {whole}" if 0 < labelled < pairs else whole


def who(users: int, models: int) -> str:
    """People and language models, counted apart."""
    n = users - models
    people = f"{n:,} {'person' if n == 1 else 'people'}"
    return people if not models else " and ".join([people] * (n > 0) + [counted(models, "language model")])


def problems_in_words(file: Any, skipped: LeftOut, *, done: bool) -> str:
    unit = file.container.unit.capitalize()
    lines = [f"{unit} {number}: {in_this_form(reason)}" for number, reason in skipped.first]
    return f"{file.in_short(skipped, done=done)}\n\n{listed(lines, skipped.n)}"


def listed(lines: list[str], n: int) -> str:
    """The first of ``n`` lines as a list, and how many there are more."""
    more = [f"And {n - SHOWN:,} more."] if n > SHOWN else []
    return "\n".join(f"- {literal(line)}" for line in lines[:SHOWN] + more)


def preview(rows: list[ImportRow]) -> None:
    """The first rows in a table, and as they will look."""
    texts = {name: st.column_config.Column(width="medium") for name in ("question", "A", "B")}
    table = [in_a_table(row) for row in rows]
    st.dataframe(table, column_config=texts, hide_index=True, width="stretch", key="import-preview")
    if any(_TEX.search(text) for row in rows for text in (row.prompt, row.response_a, row.response_b)):
        st.info(
            "These texts look as if they hold formulas in TeX. They are set as formulas once **How texts are set** "
            "(Study, Assignment) is “Markdown with formulas”; until then people read their source."
        )
    if not st.toggle("Show them as they will look", key="import-looks"):
        return
    for row in rows:
        draw_prompt(row.prompt)
        for cell, name, text in zip(st.columns(2, gap="medium"), "AB", (row.response_a, row.response_b), strict=True):
            with cell:
                st.caption(name)
                draw_response(text)
        if row.annotator is not None:
            st.caption(f"{literal(person_name(row.annotator, row.kind))}: {CHOICES[row.choice]}")
        st.divider()


def in_a_table(row: ImportRow) -> dict[str, str]:
    return {
        "person": "" if row.annotator is None else person_name(row.annotator, row.kind),
        "choice": CHOICES[row.choice],
        "question": brief(row.prompt),
        "A": brief(row.response_a),
        "B": brief(row.response_b),
    }


# ---- the import


def target(file: Any, path: Path) -> None:
    session, _ = current()
    of_file = path.name.partition(".")[0]
    here = f"Into {literal(session.record.name)}"
    empty = not labelling.has_pairs(session)
    where = st.radio("Where to", ["Into a new study", here], index=int(empty), key="import-where", horizontal=True)
    name = ""
    if where != here:
        st.session_state.setdefault("import-name", of_file)
        name = st.text_input("Name of the study made from it", key="import-name", max_chars=200)
    if st.button("Import", key="import-make", type="primary"):
        run_import(file, None if where == here else name.strip() or of_file)


def run_import(file: Any, name: str | None) -> None:
    """Import into a new study of that name, or into this one."""
    session, me = current()
    st.session_state.pop("imported", None)
    bar = st.progress(0.0, text="Importing")
    rows = moving(file.rows(), max(file.survey.rows, file.survey.labels), bar)
    try:
        if name is None:
            made, done = session.record, contents.import_rows(session, rows, file=file.path, by=me.id)
        else:
            browser = st.session_state.get("browser", "")
            made, done = contents.import_study(session, name, rows, file=file.path, browser=browser, by=me.id)
    except CoplError as problem:
        bar.empty()
        st.error(str(problem))
        return
    skipped = file.survey.skipped + done.left_out
    left_out = problems_in_words(file, skipped, done=True) if skipped.n else ""
    st.session_state["imported"] = (made, in_words(made, done, here=name is None), left_out, name is None)
    rerun()  # the menu begins with the list of studies


def moving(rows: Iterable[ImportRow], total: int, bar: Any) -> Iterator[ImportRow]:
    """The rows, with a bar that moves as they are taken."""
    for number, row in enumerate(rows):
        if number % STEP == 0:
            bar.progress(min(1.0, number / max(1, total)), text=f"Importing: {number:,} rows")
        yield row


def in_words(made: StudyRecord, report: ImportReport, *, here: bool) -> str:
    more, people = "more " * here, report.users_new - report.models_new
    counts = (
        (report.labels_new, f"{more}label", ""),
        (report.pairs_new, f"{more}pair", ""),
        (people, f"{more}person", f"{more}people"),
        (report.models_new, f"{more}language model", ""),
    )
    new = [counted(n, *words) for n, *words in counts if n]
    found = f"{literal(made.name)} has {listing(new) if new else 'nothing new'}."
    if report.labels_known:
        found += (
            f" {counted(report.labels_known, 'label')} {'was' if report.labels_known == 1 else 'were'} there already."
        )
    if report.positions_unknown:
        labels = counted(report.positions_unknown, "new label")
        found += f" Which answer was on the left is not known of {labels}: nothing is learned from the order."
    return found


def show_import(made: StudyRecord, new: str, left_out: str, here: bool) -> None:
    st.success(new)
    if left_out:
        st.warning(left_out)
    if not here and st.button(f"Open {literal(made.name)}", key="open-imported", type="primary"):
        open_study(made.id)
