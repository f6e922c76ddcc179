"""φ: a frozen embedding of a text, made once a text and kept on disk.

``φ(prompt, response) = [MiniLM(response), MiniLM(prompt ⏎ response), style features]``, P numbers.  The two MiniLM
parts are mean-pooled and of length one; the style features are ``copl_core.features``.  φ is raw: the mean and scale
by which a graph standardises it are fitted on its training texts and saved among that graph's weights, so that a text
met later is mapped in the same way.  torch and transformers are imported only when a text is not in the cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from copl_core.features import FEATURE_NAMES, measure_many
from copl_core.records import CoplError

BATCH = 32
MAX_TOKENS = 256
KEEP_EVERY = 20.0  # seconds of work that a kill may cost


class TextEmbedder:
    """Embeds (prompt, response) texts with the frozen encoder in ``folder``.

    Args:
        folder: a Hugging Face folder with config, tokenizer and safetensors weights.
        device: where the encoder runs.
        cache: folder of embeddings by content, shared by processes; None keeps them in memory.
    """

    def __init__(self, folder: Path, device: str = "cpu", cache: Path | None = None) -> None:
        self.folder = Path(folder)
        self.device = device
        self.cache = None if cache is None else Path(cache)
        self._known: dict[str, np.ndarray] = {}
        self._parts_read: set[str] = set()
        self._encoder = None
        if not (self.folder / "config.json").is_file():
            raise CoplError(
                f"No text encoder in {self.folder}: a folder with config.json, tokenizer.json and "
                "model.safetensors is needed. Name another, or none for the bundled one."
            )

    def embed(self, texts: Sequence[tuple[str, str]], progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """(prompt, response) pairs → (T, P) float32.  ``progress(done, total)`` counts encoded texts."""
        texts = list(texts)
        response = self._encode([answer for _, answer in texts], progress)
        together = self._encode([f"{prompt}\n{answer}" for prompt, answer in texts], progress)
        return np.concatenate([response, together, measure_many([answer for _, answer in texts])], axis=1)

    @property
    def width(self) -> int:
        """P, the length of φ."""
        return 2 * self._load()[1].config.hidden_size + len(FEATURE_NAMES)

    def _encode(self, texts: list[str], progress) -> np.ndarray:
        keys = [hashlib.sha256(text.encode()).hexdigest()[:40] for text in texts]
        self._read_cache()
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if fresh:
            self._encode_fresh(fresh, progress)
        return np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, 0), np.float32)

    def _encode_fresh(self, fresh: dict[str, str], progress) -> None:
        """Texts by key, short ones first; they are kept every few seconds, and when something ends the work."""
        order = sorted(fresh, key=lambda key: len(fresh[key]))
        vectors: dict[str, np.ndarray] = {}
        kept = time.monotonic()
        try:
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                vectors |= zip(batch, self._run([fresh[key] for key in batch]), strict=True)
                if time.monotonic() - kept > KEEP_EVERY:
                    self._keep(vectors)
                    vectors, kept = {}, time.monotonic()
                if progress is not None:
                    progress(start + len(batch), len(order))
        finally:
            self._keep(vectors)

    def _keep(self, vectors: dict[str, np.ndarray]) -> None:
        if vectors:
            self._known |= vectors
            self._write_cache(vectors)

    def _load(self):
        if self._encoder is None:
            from transformers import AutoModel, AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            with _quiet():
                model = AutoModel.from_pretrained(self.folder, add_pooling_layer=False, local_files_only=True)
            self._encoder = (tokenizer, model.eval().to(self.device))
        return self._encoder

    def _run(self, texts: list[str]) -> np.ndarray:
        import torch

        tokenizer, model = self._load()
        batch = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        batch = batch.to(self.device)
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state  # (B, T, H)
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=-1).float().cpu().numpy()

    def _cache_folder(self) -> Path:
        """A folder of its own for each encoder, so that vectors of two encoders never mix."""
        weights = self.folder / "model.safetensors"
        size = weights.stat().st_size if weights.is_file() else 0
        mark = (self.folder / "config.json").read_bytes() + str(size).encode()
        return self.cache / f"{hashlib.sha256(mark).hexdigest()[:12]}-{MAX_TOKENS}"

    def _read_cache(self) -> None:
        if self.cache is None:
            return
        for part in sorted(self._cache_folder().glob("*.safetensors")):
            if part.name in self._parts_read:
                continue
            self._parts_read.add(part.name)
            try:
                table = load_file(part)
            except (SafetensorError, OSError):
                continue  # unreadable: its texts are embedded again
            keys = table["keys"].tobytes().decode("ascii")
            for row, vector in enumerate(table["vectors"]):
                self._known[keys[40 * row : 40 * row + 40]] = vector

    def _write_cache(self, vectors: dict[str, np.ndarray]) -> None:
        """One new part a call, written aside and renamed: a kill leaves either the whole part or none of it."""
        if self.cache is None:
            return
        folder = self._cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(vectors).encode()).hexdigest()[:32] + ".safetensors"
        handle, aside = tempfile.mkstemp(suffix=".part", dir=folder)
        os.close(handle)
        keys = np.frombuffer("".join(vectors).encode("ascii"), np.uint8)
        save_file({"keys": keys, "vectors": np.stack(list(vectors.values()))}, aside)
        os.replace(aside, folder / name)
        self._parts_read.add(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the loading report, which calls the pooling layer that is left out on purpose a mishap."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
