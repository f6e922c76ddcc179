"""Import and export of a study."""

from __future__ import annotations

from copl_core.records import Kind
from copl_core.study import access, contents, labelling
from copl_core.study.session import Session
from tests.worlds import (
    LONG,
    label_in_camp,
    open_study,
)


def test_an_export_brings_the_same_labels_into_an_empty_study(trained, tmp_path):
    from copl_core.formats.own import read_rows, write_jsonl

    ann = access.join(trained, "Ann")
    label_in_camp(trained, ann.id, LONG, 3)
    labelling.undo(trained, ann.id)
    assert write_jsonl(contents.export(trained), tmp_path / "labels.jsonl") == 162
    problems: list = []
    copy = open_study(tmp_path / "copy")
    report = contents.import_rows(copy, read_rows(tmp_path / "labels.jsonl", problems))
    assert (report.labels_new, report.users_new, problems) == (162, 17, [])

    def labels_of(session: Session) -> list[dict]:
        rows = [
            {name: value for name, value in row.items() if name not in ("pair", "study", "asked")}
            for row in contents.export(session)
        ]
        return sorted(map(seen, rows), key=lambda row: row["label_key"])

    def seen(row: dict) -> dict:
        """The row by the sides of the screen: which response is called a and which b may differ between files."""
        sides = {"left": row["response_" + row["left"]], "right": row["response_" + row["right"]]}
        choice = {row["left"]: "left", row["right"]: "right"}.get(row["choice"], row["choice"])
        rest = {name: value for name, value in row.items() if not name.startswith(("response_", "model_"))}
        return rest | sides | {"choice": choice}

    assert labels_of(copy) == labels_of(trained)
    kinds = {user.name: user.kind for user in access.users(copy)}
    assert kinds["Ann"] == Kind.HUMAN and kinds["user 00"] == Kind.SIMULATED


def test_the_messages_of_a_conversation_come_back_as_the_same_messages(tmp_path):
    from copl_core.formats.files import open_file
    from copl_core.formats.own import write_jsonl

    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "[user]\nName a bird"}]
    other = [{"role": "system", "content": "Be warm."}, *prompt[1:]]
    answer = [{"role": "assistant", "content": "Which?"}, {"role": "user", "content": "Any"},
              {"role": "assistant", "content": "Robin"}]  # fmt: skip
    rows = [{"prompt": one, "response_a": answer, "response_b": "Wren", "choice": "a", "annotator": "Ann"}
            for one in (prompt, other)]  # fmt: skip
    write_jsonl(rows, tmp_path / "in.jsonl")
    session = open_study(tmp_path / "home")
    contents.import_rows(session, open_file(tmp_path / "in.jsonl").rows())
    assert len(contents.prompts(session)) == 2, "different system texts, different prompts"
    exported = list(contents.export(session))
    assert [row["prompt"] for row in exported] == [prompt, other]
    assert all(answer in (row["response_a"], row["response_b"]) for row in exported)
    write_jsonl(exported, tmp_path / "out.jsonl")
    assert contents.import_rows(session, open_file(tmp_path / "out.jsonl").rows()).labels_known == 2
