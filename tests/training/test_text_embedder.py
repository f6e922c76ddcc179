from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, measure
from copl_core.records import CoplError
from copl_core.storage import Storage
from copl_core.training.shared_vectors import SharedVectors
from copl_core.training.text_embedder import TextEmbedder

TEXTS = [
    ("Why is the sky blue?", "It scatters short waves."),
    ("Why?", "Because."),
    ("Why is the sky blue?", "Because."),
    ("", ""),
]


def test_a_folder_without_an_encoder_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(CoplError, match="No text encoder"):
        TextEmbedder(tmp_path)


@pytest.mark.weights
def test_each_text_is_its_response_its_response_to_the_prompt_and_its_style(minilm):
    embedder = TextEmbedder(minilm)
    phi = embedder.embed(TEXTS)
    assert phi.shape == (4, embedder.width)
    assert np.isfinite(phi).all()
    half = (embedder.width - len(FEATURE_NAMES)) // 2
    np.testing.assert_allclose(np.linalg.norm(phi[:, :half], axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(phi[1, :half], phi[2, :half])  # the same response
    assert not np.allclose(phi[1, half : 2 * half], phi[2, half : 2 * half])  # to another prompt
    np.testing.assert_array_equal(phi[0, 2 * half :], measure(TEXTS[0][1]))


@pytest.mark.weights
def test_a_text_embeds_alike_alone_and_in_a_batch(minilm):
    embedder = TextEmbedder(minilm)
    np.testing.assert_allclose(TextEmbedder(minilm).embed(TEXTS[:1]), embedder.embed(TEXTS)[:1], atol=1e-4)


@pytest.mark.weights
def test_a_text_is_encoded_once_and_found_again_by_another_process(minilm, tmp_path):
    reports = []
    first = TextEmbedder(minilm, cache=tmp_path).embed(TEXTS, progress=lambda done, of: reports.append((done, of)))
    assert reports
    reports.clear()
    again = TextEmbedder(minilm, cache=tmp_path).embed(TEXTS, progress=lambda done, of: reports.append((done, of)))
    assert reports == []
    np.testing.assert_array_equal(first, again)


@pytest.mark.weights
def test_texts_encoded_before_an_exception_are_kept(minilm, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stops(done: int, of: int) -> None:
        reports.append((done, of))
        if len(reports) == 2:
            raise Stop

    monkeypatch.setattr("copl_core.training.text_embedder.BATCH", 1)
    reports = []
    with pytest.raises(Stop):
        TextEmbedder(minilm, cache=tmp_path).embed(TEXTS, progress=stops)
    again = []
    whole = TextEmbedder(minilm, cache=tmp_path).embed(TEXTS, progress=lambda done, of: again.append((done, of)))
    assert reports == [(1, 3), (2, 3)] and again[0] == (1, 1)
    np.testing.assert_allclose(whole, TextEmbedder(minilm).embed(TEXTS), atol=1e-5)


@pytest.mark.weights
def test_what_one_trainer_has_encoded_another_finds_in_the_storage_unless_it_is_damaged(minilm, tmp_path, monkeypatch):
    monkeypatch.setattr("copl_core.training.text_embedder.FEWEST", 2)
    storage = Storage(str(tmp_path / "storage"))

    def trainer(home: str, limit_mb: float = 1.0) -> TextEmbedder:
        return TextEmbedder(minilm, cache=tmp_path / home, shared=SharedVectors(storage, limit_mb))

    def encoded(home: str) -> tuple[np.ndarray, list]:
        reports: list = []
        return trainer(home).embed(TEXTS, progress=lambda *done: reports.append(done)), reports

    first, work = encoded("one")
    assert work
    stored = storage.sizes("encodings")
    again, work = encoded("two")
    assert not work and storage.sizes("encodings") == stored
    np.testing.assert_array_equal(again, first)
    for name in stored:
        Path(storage.path(name)).write_bytes(Path(storage.path(name)).read_bytes()[:-1])  # as a killed upload leaves it
    again, work = encoded("three")
    assert work and np.isfinite(again).all()
    assert encoded("four")[1] == [], "a whole file has taken its place"
    Path(storage.path(min(stored))).touch()
    trainer("one", limit_mb=0.0).remember([f"text {n}" for n in range(4)], np.ones((4, 384), np.float32))
    assert storage.sizes("encodings") == {}
    storage.path = None  # whatever a storage does: nothing is lost but time
    assert encoded("five")[1]


@pytest.mark.weights
def test_long_work_is_saved_in_parts(minilm, tmp_path, monkeypatch):
    monkeypatch.setattr("copl_core.training.text_embedder.BATCH", 1)
    monkeypatch.setattr("copl_core.training.text_embedder.SAVE_SECONDS", 0.0)
    TextEmbedder(minilm, cache=tmp_path).embed(TEXTS)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3 + 4  # responses, and responses with their prompts


@pytest.mark.weights
def test_two_embedders_at_once_share_the_work_from_its_two_ends(minilm, tmp_path, monkeypatch):
    monkeypatch.setattr("copl_core.training.text_embedder.BATCH", 1)
    monkeypatch.setattr("copl_core.training.text_embedder.SAVE_SECONDS", 0.0)
    one, other = TextEmbedder(minilm, cache=tmp_path), TextEmbedder(minilm, cache=tmp_path, longest_first=True)
    read = {one: [], other: []}
    for embedder, texts in read.items():
        run = embedder._run
        monkeypatch.setattr(embedder, "_run", lambda batch, run=run, texts=texts: texts.extend(batch) or run(batch))
    reports = []

    def meanwhile(done: int, of: int) -> None:
        if not reports:
            other.embed(TEXTS)
        reports.append((done, of))

    shared = one.embed(TEXTS, progress=meanwhile)
    assert read[one] == [""] and len(read[other]) == 3 + 4 - 1, "each text is read once"
    assert read[other][0] == "It scatters short waves."
    assert reports == [(1, 3)]
    np.testing.assert_allclose(shared, TextEmbedder(minilm).embed(TEXTS), atol=1e-5)


@pytest.mark.weights
def test_a_part_of_the_cache_that_is_cut_short_is_made_again(minilm, tmp_path):
    first = TextEmbedder(minilm, cache=tmp_path).embed(TEXTS)
    for part in tmp_path.rglob("*.safetensors"):
        part.write_bytes(part.read_bytes()[:100])
    np.testing.assert_allclose(TextEmbedder(minilm, cache=tmp_path).embed(TEXTS), first, atol=1e-5)
    assert not list(tmp_path.rglob("*.part"))
