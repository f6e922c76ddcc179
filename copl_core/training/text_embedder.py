"""φ: a frozen embedding of a text, computed once per text and stored on disk.

``φ(prompt, response) = [MiniLM(response), MiniLM(prompt ⏎ response), style features]``, P numbers.  The two MiniLM
parts are mean-pooled and of length one; the style features are ``copl_core.features``.  φ is not standardised: a graph
fits mean and scale on its training texts and saves them with its weights, so new texts are mapped in the same way.
torch and transformers are imported only for texts that are not in the cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from copl_core.features import FEATURE_NAMES, measure_many
from copl_core.records import CoplError

BATCH = 32
MAX_TOKENS = 256
SAVE_SECONDS = 20.0  # between two writes to the cache; a kill costs at most this much work

CountProgress = Callable[[int, int], None]  # (done, total)


def inputs(prompt: str, response: str) -> tuple[str, str]:
    """The two texts that the encoder reads for φ: the response alone, and the prompt with the response."""
    return response, f"{prompt}\n{response}"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class TextEmbedder:
    """Embeds (prompt, response) texts with the frozen encoder in ``folder``.

    Args:
        folder: a Hugging Face folder with config, tokenizer and safetensors weights.
        device: where the encoder runs.
        cache: folder of embeddings by content, shared by processes; None: memory only.
    """

    def __init__(self, folder: Path, device: str = "cpu", cache: Path | None = None) -> None:
        self.folder = Path(folder)
        self.device = device
        self.cache = None if cache is None else Path(cache)
        self._known: dict[str, np.ndarray] = {}
        self._read_parts: set[str] = set()
        self._encoder: tuple[Any, Any] | None = None  # tokenizer and model, loaded at first use
        if not (self.folder / "config.json").is_file():
            raise CoplError(
                f"No text encoder in {self.folder}: a folder with config.json, tokenizer.json and "
                "model.safetensors is needed. Name another folder, or none for the bundled encoder."
            )

    def embed(self, texts: Sequence[tuple[str, str]], progress: CountProgress | None = None) -> np.ndarray:
        """(prompt, response) pairs → (T, P) float32.  ``progress(done, total)`` counts encoded texts."""
        alone, with_prompt = zip(*(inputs(*text) for text in texts), strict=True) if texts else ((), ())
        halves = [self._encode(list(half), progress) for half in (alone, with_prompt)]
        return np.concatenate([*halves, measure_many(list(alone))], axis=1)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(T, H) float32 of single texts: what the encoder gives for each."""
        return self._encode(list(texts), None)

    def remember(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep vectors (T, H) that this encoder gave for texts elsewhere, in the cache as well."""
        self._save({_key(text): vector for text, vector in zip(texts, vectors, strict=True)})

    @property
    def mark(self) -> str:
        """What the vectors depend on: the encoder and the length at which it cuts."""
        weights = self.folder / "model.safetensors"
        size = weights.stat().st_size if weights.is_file() else 0
        mark = (self.folder / "config.json").read_bytes() + str(size).encode()
        return f"{hashlib.sha256(mark).hexdigest()[:12]}-{MAX_TOKENS}"

    @property
    def width(self) -> int:
        """P, the length of φ."""
        return 2 * self._load()[1].config.hidden_size + len(FEATURE_NAMES)

    def _encode(self, texts: list[str], progress: CountProgress | None) -> np.ndarray:
        keys = [_key(text) for text in texts]
        self._read_cache()
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if missing:
            self._encode_missing(missing, progress)
        return np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, 0), np.float32)

    def _encode_missing(self, missing: dict[str, str], progress: CountProgress | None) -> None:
        """Encode texts by key, short ones first; results are saved every few seconds and after an exception."""
        order = sorted(missing, key=lambda key: len(missing[key]))
        vectors: dict[str, np.ndarray] = {}
        last_save = time.monotonic()
        try:
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                vectors |= zip(batch, self._run([missing[key] for key in batch]), strict=True)
                if time.monotonic() - last_save > SAVE_SECONDS:
                    self._save(vectors)
                    vectors, last_save = {}, time.monotonic()
                if progress is not None:
                    progress(start + len(batch), len(order))
        finally:
            self._save(vectors)

    def _save(self, vectors: dict[str, np.ndarray]) -> None:
        if vectors:
            self._known |= vectors
            self._write_cache(vectors)

    def _load(self) -> tuple[Any, Any]:
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

    def _cache_folder(self, cache: Path) -> Path:
        """A separate folder for each encoder, so that vectors of different encoders never mix."""
        return cache / self.mark

    def _read_cache(self) -> None:
        if self.cache is None:
            return
        for part in sorted(self._cache_folder(self.cache).glob("*.safetensors")):
            if part.name in self._read_parts:
                continue
            self._read_parts.add(part.name)
            try:
                table = load_file(part)
            except (SafetensorError, OSError):
                continue  # a damaged part: its texts are embedded again
            keys = table["keys"].tobytes().decode("ascii")
            for row, vector in enumerate(table["vectors"]):
                self._known[keys[40 * row : 40 * row + 40]] = vector

    def _write_cache(self, vectors: dict[str, np.ndarray]) -> None:
        """Write one new part, under a temporary name until it is complete: a kill leaves the whole part or none."""
        if self.cache is None:
            return
        folder = self._cache_folder(self.cache)
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("".join(vectors).encode()).hexdigest()[:32] + ".safetensors"
        handle, temporary = tempfile.mkstemp(suffix=".part", dir=folder)
        os.close(handle)
        keys = np.frombuffer("".join(vectors).encode("ascii"), np.uint8)
        save_file({"keys": keys, "vectors": np.stack(list(vectors.values()))}, temporary)
        os.replace(temporary, folder / name)
        self._read_parts.add(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Load without the report on the missing pooling layer, which is omitted on purpose."""
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
