"""Settings of one installation: read from the environment once, checked at birth, passed as an argument ever after."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from copl_core.records import CoplError
from copl_core.study_settings import Schedule


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things live and when the trainer acts.  Each field is set by ``COPL_<FIELD NAME IN CAPITALS>``."""

    home: Path = Path("var")  # database, queue, snapshots, weights and caches all live below this folder
    database_url: str = ""  # empty: SQLite in the home folder
    port: int = 8501  # where the app answers
    backbone: str = "minilm"  # minilm, smollm2, or any Hugging Face id or folder
    device: str = "cpu"  # cpu, cuda, cuda:1, mps: where the trainer and the reward page compute
    threads: int = 0  # torch threads of the trainer; 0 leaves one core to the app
    refit_labels: int = 8  # new labels that make a refit of the graph due
    refit_seconds: float = 15.0  # and never more often than this
    reward_labels: int = 40  # new labels that make a refit of the reward model due
    reward_seconds: float = 120.0  # and never more often than this
    reward_budget_seconds: float = 240.0  # a fit of the reward model stops improving itself after this long
    reserve_seconds: float = 900.0  # a task handed out and not answered goes back after this long
    seed: int = 0  # of every random choice of the trainer
    balance: float = 0.5  # weight of the loss that keeps experts evenly used; 0 lets them fall idle

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise CoplError(f"COPL_PORT is {self.port}; a port is a number from 1 to 65535; choose one such as 8501.")
        for name in ("refit_labels", "reward_labels"):
            if getattr(self, name) < 1:
                raise CoplError(f"COPL_{name.upper()} is {getattr(self, name)}; it counts labels, 1 or more.")
        for name in (
            "refit_seconds",
            "reward_seconds",
            "reward_budget_seconds",
            "reserve_seconds",
            "threads",
            "balance",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise CoplError(f"COPL_{name.upper()} is {getattr(self, name)}; it must be 0 or more.")
        if not 0 <= self.seed < 2**32:
            raise CoplError(f"COPL_SEED is {self.seed}; it must be a whole number from 0 to {2**32 - 1}.")
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", self.device):
            raise CoplError(f"COPL_DEVICE is {self.device!r}; it must be cpu, cuda, cuda:1 and so on, or mps.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings with every ``COPL_*`` variable that names a field applied.

        Raises:
            CoplError: a value is not of the field's type or out of its range.
        """
        environment = os.environ if environment is None else environment
        values = {}
        for spec in fields(cls):
            raw = environment.get(f"COPL_{spec.name.upper()}")
            if raw:
                values[spec.name] = _parse(spec.name, raw, type(spec.default))
        return cls(**values)

    @property
    def url(self) -> str:
        """SQLAlchemy address of the database."""
        return self.database_url or f"sqlite:///{(self.home / 'copl.db').resolve()}"

    @property
    def queue_path(self) -> Path:
        return self.home / "queue.db"

    @property
    def snapshots(self) -> Path:
        return self.home / "snapshots"

    @property
    def weights(self) -> Path:
        return self.home / "weights"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def run_logs(self) -> Path:
        return self.home / "logs" / "runs"

    @property
    def schedule(self) -> Schedule:
        """When the trainer acts by itself in a study that has settled nothing else."""
        return Schedule(True, self.refit_labels, self.refit_seconds, self.reward_labels, self.reward_seconds)


def _parse(name: str, raw: str, kind: type) -> object:
    try:
        return kind(raw) if not issubclass(kind, Path) else Path(raw).expanduser()
    except ValueError:
        noun = {"int": "a whole number", "float": "a number"}.get(kind.__name__, kind.__name__)
        raise CoplError(f"COPL_{name.upper()} is {raw!r}; it must be {noun}; correct it or unset it.") from None
