"""Settings of one installation: read from the environment once, checked at construction, passed on as an argument."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from copl_core.folders import from_root
from copl_core.logs import STYLES
from copl_core.records import OFFERED_KINDS, RUN_KINDS, CoplError
from copl_core.study_settings import Schedule

STOP_SECONDS = 8.0  # that the trainer gives its current run to reach the next step; the launcher waits longer
ROUTINGS = ("top1", "top2", "soft")  # which experts serve a user, see ``reward.routes``
GATE_INPUTS = ("user", "user+prompt")  # what the gate of the reward model reads
_PREFIX = "COPL_"
_OF_TESTS = "COPL_TEST_"  # variables of the test suite, which no setting reads


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things live and when the trainer acts; ``COPL_<FIELD NAME IN CAPITALS>`` sets a field."""

    home: Path = Path("var")  # database, snapshots, weights and caches all live below this folder
    database_url: str = field(default="", repr=False)  # may hold a password; empty: SQLite in the home folder
    # where machines share snapshots: a folder, or s3://…, gs://…, which may hold a password; empty: the home alone
    storage: str = field(default="", repr=False)
    imports: str = ""  # the one folder whose files owners may import in the app; empty: imports in the home folder
    port: int = 8501  # where the app answers
    address: str = "127.0.0.1"  # who reaches the app: this machine alone; 0.0.0.0: everybody in its networks
    framed_by: str = ""  # sites that may show the app in a frame, such as https://portal.example.org; empty: none
    backbone: str = "minilm"  # minilm, smollm2, or any Hugging Face id or folder
    models: str = ""  # folder below which pages may name models; empty: models in the home folder
    device: str = "cpu"  # cpu, cuda, cuda:1, mps: where the trainer and the reward page compute
    kinds: str = ",".join(RUN_KINDS)  # of runs that this trainer executes
    lease_seconds: float = 60.0  # after so long without a sign of life another trainer takes a run over
    threads: int = 0  # torch threads of the trainer; 0 leaves one core to the app
    processes: int = 1  # that fit a graph of 100,000 labels or more together, each with its own part of the people
    rank_seconds: float = 180.0  # that the first of them waits for another one within a step
    refit_labels: int = 8  # new labels after which the graph is fitted again
    refit_seconds: float = 15.0  # shortest time between two such fits
    reward_labels: int = 40  # new labels after which the reward model is fitted again
    reward_seconds: float = 120.0  # shortest time between two such fits
    reward_steps: int = 0  # steps of a fit of the reward model; 0: as many as its labels need
    reward_budget_seconds: float = 240.0  # after this time such a fit is cut, and says so
    cache_mb: float = 2000.0  # of what texts become, on disk and shared by all fits and pages; the oldest goes first
    reserve_seconds: float = 900.0  # a pair that is not answered goes back to the queue after this time
    link_days: float = 7.0  # that a sign-in link opens which an owner makes for somebody, or a terminal prints
    backup_hours: float = 24.0  # between two copies of a SQLite database that the trainer makes; 0: none
    backup_keep: int = 7  # of these copies; the oldest goes first
    log: str = "text"  # of app, trainer and reward server: text, or json for one object per line
    seed: int = 0  # of every random choice of the trainer
    balance: float = 0.5  # weight of the loss that keeps experts evenly used; 0 lets some fall idle
    routing: str = "top1"  # experts of a person: top1 as in the paper, top2, or soft for all
    gate_input: str = "user"  # what selects the experts: user, or user+prompt

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise CoplError(f"COPL_PORT is {self.port}; a port is a number from 1 to 65535; choose one such as 8501.")
        try:
            ip_address(self.address)
        except ValueError:
            raise CoplError(
                f"COPL_ADDRESS is {self.address!r}; it must be an IP address of this machine, such as 127.0.0.1, or "
                "0.0.0.0 for all of them."
            ) from None
        for site in self.framed_by.split():
            if not re.fullmatch(r"https?://[A-Za-z0-9.*-]+(:\d{1,5})?", site):
                raise CoplError(
                    f"COPL_FRAMED_BY names {site!r}; give sites such as https://portal.example.org, with a space "
                    "between two."
                )
        if self.log not in STYLES:
            raise CoplError(f"COPL_LOG is {self.log!r}; it must be {' or '.join(STYLES)}.")
        if self.storage and "://" not in self.storage and not Path(self.storage).is_absolute():
            raise CoplError(
                f"COPL_STORAGE is {self.storage!r}; give a folder from the root, such as /data/copl, or an address "
                "such as s3://bucket/copl."
            )
        _ = self.imports_folder, self.model_root  # which have to be named from the root
        if self.backup_keep < 1:
            raise CoplError(f"COPL_BACKUP_KEEP is {self.backup_keep}; it counts copies, 1 or more.")
        for name in ("refit_labels", "reward_labels"):
            if getattr(self, name) < 1:
                raise CoplError(f"COPL_{name.upper()} is {getattr(self, name)}; it counts labels, 1 or more.")
        for name in (
            "refit_seconds",
            "reward_seconds",
            "reward_steps",
            "reward_budget_seconds",
            "cache_mb",
            "backup_hours",
            "reserve_seconds",
            "threads",
            "balance",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise CoplError(f"COPL_{name.upper()} is {getattr(self, name)}; it must be 0 or more.")
        if self.processes < 1 or self.processes > 1 and self.device == "mps":
            raise CoplError(
                f"COPL_PROCESSES is {self.processes} and COPL_DEVICE is {self.device}; the first must be 1 or more, "
                "and 1 on mps."
            )
        if not 0 < self.link_days <= 3650:
            raise CoplError(f"COPL_LINK_DAYS is {self.link_days:g}; it must be more than 0, and at most 3,650.")
        for name in ("lease_seconds", "rank_seconds"):
            if not 1 <= getattr(self, name) <= 86_400:
                raise CoplError(f"COPL_{name.upper()} is {getattr(self, name)}; it must be from 1 to 86,400.")
        if not self.run_kinds or not set(self.run_kinds) <= set(OFFERED_KINDS):
            raise CoplError(
                f"The kinds of runs are {self.kinds!r}; choose from {', '.join(OFFERED_KINDS)}, with a comma between "
                "two, by --kinds or COPL_KINDS."
            )
        if not 0 <= self.seed < 2**32:
            raise CoplError(f"COPL_SEED is {self.seed}; it must be a whole number from 0 to {2**32 - 1}.")
        if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", self.device):
            raise CoplError(f"COPL_DEVICE is {self.device!r}; it must be cpu, cuda, cuda:1 and so on, or mps.")

        for name, allowed in (("routing", ROUTINGS), ("gate_input", GATE_INPUTS)):
            if getattr(self, name) not in allowed:
                raise CoplError(
                    f"COPL_{name.upper()} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}."
                )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings with the ``COPL_*`` variables applied; an empty variable counts as unset.

        Raises:
            CoplError: a variable names no field, or its value has another type than the field or is out of range.
        """
        environment = os.environ if environment is None else environment
        _refuse_unknown(environment)
        values: dict[str, Any] = {}
        for spec in fields(cls):
            raw = environment.get(f"COPL_{spec.name.upper()}")
            if raw:
                values[spec.name] = _parse(spec.name, raw, type(spec.default))
        return cls(**values)

    def make_home(self) -> None:
        """Create the home folder, for its user alone; one that exists keeps its rights.

        Raises:
            CoplError: it cannot be created.
        """
        try:
            self.home.parent.mkdir(parents=True, exist_ok=True)
            self.home.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CoplError(
                f"The folder {self.home} cannot be created ({error.strerror}); "
                "choose a writable one with COPL_HOME=/some/folder."
            ) from error

    def keep_private(self) -> None:
        """Make new files of this process its user's alone, if the home is; a home that is shared, and files that others
        may read elsewhere (a folder as storage, a database of its own), keep the rights that the system gives.
        """
        shares = self.database_url.startswith("sqlite") or (
            self.storage and ("://" not in self.storage or self.storage.startswith("file:"))
        )
        if not shares and not stat.S_IMODE(self.home.stat().st_mode) & 0o077:
            os.umask(0o077)

    @property
    def url(self) -> str:
        """SQLAlchemy address of the database."""
        return self.database_url or f"sqlite:///{(self.home / 'copl.db').resolve()}"

    @property
    def database_file(self) -> Path | None:
        """The file of a SQLite database; None where a server has it."""
        path = self.url.removeprefix("sqlite:///").partition("?")[0]
        return Path(path) if self.url.startswith("sqlite:///") and not path.startswith((":", "file:")) else None

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the app."""
        return ip_address(self.address).is_loopback

    @property
    def host(self) -> str:
        """The name of this machine in an address that opens the app from here."""
        found = ip_address(self.address)
        if found.is_loopback or found.is_unspecified:
            return "localhost"
        return f"[{found}]" if found.version == 6 else str(found)

    @property
    def link_time(self) -> str:
        """How long a sign-in link opens that is made for somebody, such as "7 days"."""
        return f"{self.link_days:g} day{'s' * (self.link_days != 1)}"

    @property
    def run_kinds(self) -> tuple[str, ...]:
        """The kinds of runs that this trainer executes."""
        return tuple(dict.fromkeys(kind.strip() for kind in self.kinds.split(",") if kind.strip()))

    @property
    def trainer_given_up(self) -> Path:
        """A file that says why the launcher of this home does not start the trainer again, while it does not."""
        return self.home / "logs" / "trainer-given-up.txt"

    @property
    def imports_folder(self) -> Path:
        """The folder whose files owners may import in the app; it need not exist."""
        return from_root("COPL_IMPORTS", self.imports) if self.imports else self.home / "imports"

    @property
    def snapshots(self) -> Path:
        return self.home / "snapshots"

    @property
    def weights(self) -> Path:
        return self.home / "weights"

    @property
    def model_root(self) -> Path:
        """The folder below which a model has to lie that a page names by its folder."""
        return from_root("COPL_MODELS", self.models) if self.models else self.home / "models"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def run_logs(self) -> Path:
        return self.home / "logs" / "runs"

    @property
    def schedule(self) -> Schedule:
        """When the trainer starts runs automatically in a study without a schedule."""
        return Schedule(True, self.refit_labels, self.refit_seconds, self.reward_labels, self.reward_seconds)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = [_PREFIX + spec.name.upper() for spec in fields(Settings)]
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name.startswith(_OF_TESTS) or name in known or not environment[name]:
            continue
        nearest = get_close_matches(name.upper(), known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "."
        raise CoplError(f"{name} is not a setting{hint} Correct it or unset it. The settings are {', '.join(known)}.")


def _parse(name: str, raw: str, kind: type) -> Any:
    make: Callable[[str], Any] = kind
    try:
        return Path(raw).expanduser() if issubclass(kind, Path) else make(raw)
    except ValueError:
        noun = {"int": "a whole number", "float": "a number"}.get(kind.__name__, kind.__name__)
        raise CoplError(f"COPL_{name.upper()} is {raw!r}; it must be {noun}; correct it or unset it.") from None
