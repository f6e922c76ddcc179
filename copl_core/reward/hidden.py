"""Hidden states of texts after the frozen lower layers, each computed once.

The lower layers see no user and never change, so the states of a text after layer L - k can be kept.  Training and
scoring then run only the last k layers (7.5 times faster for 4 of 30 layers, 16 times for 2).  States are stored in
float16 where the values fit, else in bfloat16.  A text has about 150 KB of them: they lie on disk (``StatesFolder``),
and memory holds the few that were read last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from copl_core.config import Settings
from copl_core.kept_files import KeptFiles
from copl_core.reward.backbone import Backbone, matrix_products

HALF_MAX = 6e4  # float16 overflows above this; residual streams of decoders sometimes come close
IN_MEMORY = 64_000_000  # bytes of states in memory where there is a folder for them
SHARE = 0.75  # of the disk space for what texts become; the rest is for text embeddings
SAMPLED = 997  # every so many-th weight of the lower layers goes into their stamp


class StatesFolder:
    """States (len, d) by key on disk, in files of one batch each: whole or absent, shared by processes, bounded.

    Args:
        limit_mb: beyond it, the files that were used longest ago are removed.
    """

    def __init__(self, folder: Path, limit_mb: float) -> None:
        self.files = KeptFiles(folder, limit_mb)
        self._file_of: dict[str, Path] = {}  # key → file
        self._listed: set[Path] = set()

    def read(self, keys: Sequence[str], stamp: str) -> dict[str, Tensor]:
        """The states that are here; a damaged or removed file counts as absent."""
        if any(key not in self._file_of for key in keys):
            self._list(stamp)
        by_file: dict[Path, list[str]] = {}
        for key in keys:
            if key in self._file_of:
                by_file.setdefault(self._file_of[key], []).append(key)
        found: dict[str, Tensor] = {}
        for file, wanted in by_file.items():
            try:
                with safe_open(file, "pt") as saved:
                    found |= {key: saved.get_tensor(key).clone() for key in wanted}
                self.files.used(file)
            except (OSError, SafetensorError):
                self._forget(file)
        return found

    def write(self, states: Mapping[str, Tensor], stamp: str) -> None:
        """Keep states; a full disk costs time later and nothing else."""
        name = f"{stamp}-{hashlib.sha256(''.join(states).encode()).hexdigest()[:32]}.safetensors"
        contents = {key: own.contiguous() for key, own in states.items()}
        file = self.files.write(name, lambda path: save_file(contents, path))
        if file is not None:
            self._listed.add(file)
            self._file_of |= dict.fromkeys(states, file)

    def _list(self, stamp: str) -> None:
        """Learn what other processes have written."""
        for file in self.files.folder.glob(f"{stamp}-*.safetensors"):
            if file in self._listed:
                continue
            self._listed.add(file)
            try:
                with safe_open(file, "pt") as saved:
                    self._file_of |= dict.fromkeys(saved.keys(), file)
            except (OSError, SafetensorError):
                self.files.remove(file)  # damaged: its texts are computed again

    def _forget(self, file: Path) -> None:
        self.files.remove(file)
        self._listed.discard(file)
        self._file_of = {key: own for key, own in self._file_of.items() if own != file}


def states_folder(settings: Settings) -> StatesFolder:
    """Where this installation keeps hidden states."""
    return StatesFolder(settings.cache / "states", SHARE * settings.cache_mb)


class HiddenCache:
    """States (len, d) by text.

    Args:
        backbone: provides the lower layers; a cache belongs to one backbone and one ``max_tokens``.
        device: where the lower layers run; the states are stored in main memory.
        limit: most texts in memory; the oldest are removed.  With ``disk``, ``IN_MEMORY`` bounds them too.
        batch: texts per run of the lower layers.
        precision: of their matrix products, as in ``RewardConfig``.
        disk: where states are kept from process to process.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_tokens: int,
        device: torch.device | str = "cpu",
        limit: int = 20_000,
        batch: int = 8,
        precision: str = "auto",
        disk: StatesFolder | None = None,
    ) -> None:
        self.backbone, self.max_tokens, self.device, self.limit, self.batch = backbone, max_tokens, device, limit, batch
        self.precision, self.disk = precision, disk
        self.runs = 0  # texts that went through the lower layers so far
        self._states: dict[str, Tensor] = {}
        self._own_stamp = ""

    def __len__(self) -> int:
        return len(self._states)

    def get(self, texts: Sequence[tuple[str, str]]) -> list[Tensor]:
        """States (len, d) of each text, in order; float16 or bfloat16."""
        keys = [self._key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._states}
        fresh = self._read(missing)
        fresh |= self._compute({key: text for key, text in missing.items() if key not in fresh})
        found = [fresh[key] if key in fresh else self._states[key] for key in keys]
        self._states.update(fresh)
        self._shrink()
        return found

    def save(self, file: Path) -> None:
        """Write all states in memory to one safetensors file, under a temporary name until it is complete."""
        temporary = file.with_name(file.name + ".partial")
        save_file({key: states.contiguous() for key, states in self._states.items()}, temporary, {"of": self._stamp()})
        temporary.rename(file)

    def load(self, file: Path) -> int:
        """Add states saved for the same backbone and ``max_tokens``, and return how many the cache then has.

        A file of another backbone is ignored: 0.
        """
        with safe_open(file, "pt") as saved:
            if (saved.metadata() or {}).get("of") != self._stamp():
                return 0
            self._states.update({key: saved.get_tensor(key) for key in saved.keys()})
        return len(self._states)

    def _shrink(self) -> None:
        """Remove the oldest states from memory."""
        size = sum(states.nbytes for states in self._states.values()) if self.disk is not None else 0
        for key in list(self._states):
            if len(self._states) <= self.limit and size <= IN_MEMORY:
                break
            size -= self._states.pop(key).nbytes

    def _read(self, missing: Mapping[str, tuple[str, str]]) -> dict[str, Tensor]:
        return self.disk.read(list(missing), self._disk_stamp()) if self.disk is not None and missing else {}

    def _compute(self, missing: dict[str, tuple[str, str]]) -> dict[str, Tensor]:
        ids = dict(zip(missing, self.backbone.encode(list(missing.values()), self.max_tokens), strict=True))
        order = sorted(ids, key=lambda key: len(ids[key]))  # texts of similar length together need little padding
        fresh: dict[str, Tensor] = {}
        for start in range(0, len(order), self.batch):
            keys = order[start : start + self.batch]
            with matrix_products(self.device, self.precision):
                states = self.backbone.lower_states([ids[key] for key in keys], self.device)
            fresh.update((key, _half_precision(s)) for key, s in zip(keys, states, strict=True))
        if self.disk is not None and fresh:
            self.disk.write(fresh, self._disk_stamp())
        self.runs += len(fresh)
        return fresh

    def _stamp(self) -> str:
        """What the states of a file depend on."""
        below = self.backbone.depth - self.backbone.last_layers
        own = "" if self.backbone.own_head is None else " own head"  # which reads other tokens
        return f"{self.backbone.name} {below} {self.max_tokens} {self.precision}{own}"

    def _disk_stamp(self) -> str:
        """The same for a folder that outlives processes: another model may then have the same name."""
        if not self._own_stamp:
            digest = hashlib.sha256(f"{self._stamp()} {torch.device(self.device).type}".encode())
            for weight in self.backbone.lower.parameters():
                digest.update(weight.detach().flatten()[::SAMPLED].float().cpu().numpy().tobytes())
            self._own_stamp = digest.hexdigest()[:16]
        return self._own_stamp

    def _key(self, text: tuple[str, str]) -> str:
        return hashlib.sha256("\x00".join(text).encode()).hexdigest()


class TextStates(Mapping[int, Tensor]):
    """Hidden states by row of the text, read when they are needed.

    Args:
        texts: (prompt, response) of all rows.
        rows: those that have states here, in order.
    """

    def __init__(self, cache: HiddenCache, texts: Sequence[tuple[str, str]], rows: Sequence[int]) -> None:
        self.cache, self.texts, self.rows = cache, texts, rows

    def __getitem__(self, row: int) -> Tensor:
        return self.cache.get([self.texts[row]])[0]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def prepare(self, rows: Iterable[int]) -> None:
        """Compute the states of some rows, or read them where another process has computed them."""
        self.cache.get([self.texts[row] for row in rows])


def pad_states(states: Sequence[Tensor], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Right-padded float32 states (B, T, d) and their mask (B, T) int64."""
    width = max(map(len, states))
    padded = torch.zeros(len(states), width, states[0].shape[1])
    mask = torch.zeros(len(states), width, dtype=torch.long)
    for row, own in enumerate(states):
        padded[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return padded.to(device), mask.to(device)


def _half_precision(states: Tensor) -> Tensor:
    kind = torch.float16 if states.abs().max() < HALF_MAX else torch.bfloat16
    return states.to("cpu", kind).clone()
