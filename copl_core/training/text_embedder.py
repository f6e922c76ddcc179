"""φ: a frozen embedding of a text, computed once per text and stored on disk.

``φ(prompt, response) = [MiniLM(response), MiniLM(prompt ⏎ response), style features]``, P numbers.  The two MiniLM
parts are mean-pooled and of length one; the style features are ``copl_core.features``.  φ is not standardised: a graph
fits mean and scale on its training texts and saves them with its weights, so new texts are mapped in the same way.
torch and transformers are imported only for texts that are not in the cache.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from copl_core import features, features_1
from copl_core.config import Settings
from copl_core.features import FEATURE_NAMES
from copl_core.kept_files import KeptFiles
from copl_core.records import CoplError
from copl_core.training.importing import import_transformers
from copl_core.training.onednn import use_onednn
from copl_core.training.shared_vectors import FEWEST, SharedVectors
from copl_core.training.vector_files import KEY, VectorFiles
from copl_core.turns import is_conversation, last_part, words_of

BATCH = 16
MAX_TOKENS = 256
CONTEXT = 400  # characters of a conversation that the encoder reads beside the response
SAVE_SECONDS = 20.0  # between two writes to the cache; a kill costs at most this much work
SHARE = 0.25  # of the disk space for what texts become; the rest is for hidden states

CountProgress = Callable[[int, int], None]  # (done, total)


_MEASURES = {1: features_1.measure_many, features.VERSION: features.measure_many}


def measured(texts: Sequence[str], version: int) -> np.ndarray:
    """Style features (T, F) float32 as a version defines them.

    Raises:
        CoplError: this program does not know the version.
    """
    if version not in _MEASURES:
        raise CoplError(
            f"The snapshot measures texts by version {version} of the style features, this program knows versions up "
            f"to {features.VERSION}; start the newer program, or fit again."
        )
    return _MEASURES[version](texts)


def inputs(prompt: str, response: str) -> tuple[str, str]:
    """The two texts that the encoder reads for φ: the response alone, and the prompt with the response.

    Of a conversation it reads the words of the last turns: a long history would leave no room for the response.
    """
    if is_conversation(prompt):
        prompt = words_of(last_part(prompt, CONTEXT))
    response = words_of(response)
    return response, f"{prompt}\n{response}"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY]


class TextEmbedder:
    """Embeds (prompt, response) texts with the frozen encoder in ``folder``.

    Args:
        folder: a Hugging Face folder with config, tokenizer and safetensors weights.
        device: where the encoder runs.
        cache: folder of embeddings by content, shared by processes; None: memory only.
        limit_mb: of that folder; what was used longest ago is removed.
        longest_first: order of the work; two embedders that begin at its two ends share the cache, and the work.
        shared: where other machines find what this one encodes, and the other way around; needs a cache.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        cache: Path | None = None,
        limit_mb: float = 500.0,
        *,
        longest_first: bool = False,
        shared: SharedVectors | None = None,
    ) -> None:
        self.folder, self.shared = Path(folder), shared
        self.device = device
        self.longest_first = longest_first
        self.cache = None if cache is None else Path(cache)
        self._known: dict[str, np.ndarray] = {}  # without a cache: every vector so far
        self._encoder: tuple[Any, Any] | None = None  # tokenizer and model, loaded at first use
        if not (self.folder / "config.json").is_file():
            raise CoplError(
                f"No text encoder in {self.folder}: a folder with config.json, tokenizer.json and "
                "model.safetensors is needed. Name another folder, or none for the bundled encoder."
            )
        self._kept = None
        if self.cache:
            self._kept = VectorFiles(KeptFiles(self.cache / self.mark, limit_mb), self._hidden_size())

    def embed(
        self,
        texts: Sequence[tuple[str, str]],
        progress: CountProgress | None = None,
        *,
        features_version: int = features.VERSION,
    ) -> np.ndarray:
        """(prompt, response) pairs → (T, P) float32.  ``progress(done, total)`` counts encoded texts.

        ``features_version`` is that of the graph that will read φ; a new graph takes the present one.
        """
        alone, with_prompt = zip(*(inputs(*text) for text in texts), strict=True) if texts else ((), ())
        halves = [self._encode(list(half), progress) for half in (alone, with_prompt)]
        return np.concatenate([*halves, measured(list(alone), features_version)], axis=1)

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

    def _hidden_size(self) -> int:
        """H, from the configuration where it names it: most texts are in the cache, and need no model."""
        try:
            config = json.loads((self.folder / "config.json").read_bytes())
        except ValueError:
            raise CoplError(
                f"{self.folder / 'config.json'} is not JSON; copy the folder of the text encoder "
                "again, or name none for the bundled one."
            ) from None
        size = config.get("hidden_size") if isinstance(config, dict) else None
        return size if isinstance(size, int) else self._load()[1].config.hidden_size

    def forget_encoder(self) -> None:
        """Free the encoder's memory; it is loaded again for the next text that is not in the cache."""
        self._encoder = None

    def _encode(self, texts: list[str], progress: CountProgress | None) -> np.ndarray:
        keys = [_key(text) for text in texts]
        if not keys:
            return np.zeros((0, 0), np.float32)
        found = self._found(keys)
        if self.shared and self._kept and len(set(keys) - found.keys()) >= FEWEST:
            self.shared.take(self.mark, self._kept)
            found = self._found(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            found |= self._encode_missing(missing, progress)
        return np.stack([found[key] for key in keys])

    def _found(self, keys: list[str]) -> dict[str, np.ndarray]:
        """The vectors that are known already."""
        if self._kept is None:
            return {key: self._known[key] for key in keys if key in self._known}
        return self._kept.read(set(keys))

    def _encode_missing(self, missing: dict[str, str], progress: CountProgress | None) -> dict[str, np.ndarray]:
        """Encode texts by key, in the order of length; results are saved every few seconds and after an exception.

        What another embedder has saved meanwhile is taken from there.
        """
        left = sorted(missing, key=lambda key: len(missing[key]), reverse=self.longest_first)
        found: dict[str, np.ndarray] = {}
        unsaved: dict[str, np.ndarray] = {}
        last_save = time.monotonic()
        try:
            while left:
                batch, left = left[:BATCH], left[BATCH:]
                unsaved |= zip(batch, self._run([missing[key] for key in batch]), strict=True)
                saves = time.monotonic() - last_save > SAVE_SECONDS
                if saves:
                    self._save(unsaved)
                    found, unsaved, last_save = found | unsaved, {}, time.monotonic()
                if progress is not None:
                    progress(len(missing) - len(left), len(missing))
                if saves:
                    found |= self._found(left)
                    left = [key for key in left if key not in found]
        finally:
            self._save(unsaved)
        return found | unsaved

    def _save(self, vectors: dict[str, np.ndarray]) -> None:
        if self._kept is None:
            self._known |= vectors
        elif vectors:
            file = self._kept.write(vectors)
            if self.shared and file and len(vectors) >= FEWEST:
                self.shared.put(self.mark, file)

    def _load(self) -> tuple[Any, Any]:
        if self._encoder is None:
            transformers = import_transformers()
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            with _quiet():
                model = transformers.AutoModel.from_pretrained(
                    self.folder, add_pooling_layer=False, local_files_only=True, use_safetensors=True
                )
            model = model.eval().to(self.device)
            if self.device == "cpu":
                use_onednn(model)
            self._encoder = (tokenizer, model)
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


def installed_embedder(
    settings: Settings, encoder: Path, *, longest_first: bool = False, shared: SharedVectors | None = None
) -> TextEmbedder:
    """The embedder in a folder, with the disk cache of the installation."""
    return TextEmbedder(
        encoder,
        device=settings.device,
        cache=settings.cache / "phi",
        limit_mb=SHARE * settings.cache_mb,
        longest_first=longest_first,
        shared=shared,
    )
