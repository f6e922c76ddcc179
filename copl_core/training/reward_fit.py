"""Fit the personalised reward model to labels: Bradley-Terry on r_u(left) - r_u(right).

    loss = mean BCE(sigmoid(r_u(l) - r_u(r) + side), outcome) + balance * Switch load loss of the gate

in logits (logsigmoid inside), ties at one half, ``side`` a nuisance for the screen side that no score contains.  A step
takes a few texts and all labels among them, see ``reward.margins``.

Several processes train together where ``accelerate launch`` started them, each on batches of its own (``processes``).

A training that was killed goes on from its last state (``checkpoint``) and takes the very steps that it would have
taken: on a processor it ends in the same weights, bit for bit, unless a time budget binds its schedule to the clock.

Held-out labels are drawn by who answered which two responses, so a label stays on its side of the line in every later
fit.  They are cut in two: one half stops the training and fits the temperature, the other is reported.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.reward.backbone import Backbone, Resolver, load_backbone
from copl_core.reward.experts import balance_loss, load_report
from copl_core.reward.hidden import HiddenCache
from copl_core.reward.margins import Choose, Margins, all_tokens, even_tokens, random_tokens
from copl_core.reward.model import STRUCTURE, RewardConfig, RewardModel
from copl_core.reward.start import start_gate, start_head
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.distributed import Processes
from copl_core.training.metrics import log_losses, measures
from copl_core.training.progress import HELD_OUT, Progress

FEWEST_LABELS = 8
MOST_HELD = 2000  # labels held out; measuring more costs time and tells little
MONITOR_LABELS = 256  # held-out labels that an evaluation in training looks at, at most
LABELS_A_STEP = 4096  # more labels among one step's texts are thinned to this
EVALUATIONS = 10  # in a whole training, about
TRAINING_SHARE = 0.85  # of a time budget; the rest is for the last measurements


def fit_reward(
    data: TrainingData,
    user_vectors: np.ndarray,
    config: RewardConfig,
    *,
    weights: Resolver,
    seed: int = 0,
    device: torch.device | str = "cpu",
    warm: RewardModel | None = None,
    cache: HiddenCache | None = None,
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    time_budget_s: float | None = None,
    checkpoint: Checkpoint | None = None,
) -> RewardModel:
    """A reward model of all users of ``data``.

    Args:
        user_vectors: (U, d), row i belongs to ``data.user_ids[i]``.
        weights: gives the folder of bundled backbone weights by name.
        warm: start from this model's weights where its structure and width are the same.
        cache: hidden states to use and to fill; it must belong to the same backbone.
        time_budget_s: the schedule is squeezed to end by then; the preparation of unseen texts counts.
        checkpoint: where to keep how far the training is, and to go on from where the same training was killed.  Each
            process has a file of its own; they go on where all of them stood at the same step, and else begin anew.

    Returns:
        The model in eval mode, on ``device``; ``metrics`` has the held-out figures and the load of the experts.

    Raises:
        CoplError: too few labels, or vectors that do not belong to the users.
    """
    _check(data, user_vectors)
    started = time.monotonic()
    processes = Processes(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, warmed = _model(config, np.shape(user_vectors)[1], weights, warm, cache, backbone)
        model.place_users(user_vectors)
        model.on(processes.device)
        deadline = None if time_budget_s is None else started + TRAINING_SHARE * time_budget_s
        fit = RewardTrainer(
            model, data, user_vectors, processes.generator(seed), progress or (lambda *_: None), deadline, processes
        )
        states = None
        if checkpoint is not None:
            states = States(checkpoint, processes, _key(fit, seed, warm if warmed else None, time_budget_s))
        found = states and states.found()
        if not warmed and not found:
            fit.start(seed)
        fit.train(states, found)
        model.metrics = fit.calibrate() | {"seconds": round(time.monotonic() - started + fit.seconds_before, 2)}
    return model


def _check(data: TrainingData, user_vectors: np.ndarray) -> None:
    if len(user_vectors) != data.n_users:
        raise CoplError(f"got {len(user_vectors)} user vectors for {data.n_users} users: give one row a user")
    if len(data.labels) < FEWEST_LABELS:
        raise CoplError(
            f"got {len(data.labels)} labels, a reward model needs at least {FEWEST_LABELS}: collect more first"
        )


def _model(
    config: RewardConfig,
    d_user: int,
    weights: Resolver,
    warm: RewardModel | None,
    cache: HiddenCache | None,
    backbone: Backbone | None,
) -> tuple[RewardModel, bool]:
    """A model to train, and whether it starts from the warm one."""
    known = [b for b in (backbone, warm and warm.backbone, cache and cache.backbone) if b]
    same = [b for b in known if (b.name, b.last_layers) == (config.backbone, config.last_layers)]
    found = same[0] if same else load_backbone(config.backbone, weights, config.last_layers)
    model = RewardModel(config, found, d_user)
    if cache is not None and (cache.backbone is found and cache.max_tokens == config.max_tokens):
        model.cache = cache
    fits = (
        warm is not None
        and warm.d_user == d_user
        and all(getattr(warm.config, name) == getattr(config, name) for name in STRUCTURE)
    )
    if fits:
        model.take({name: tensor.detach().cpu() for name, tensor in warm.own_tensors().items()})
    return model, fits


def _key(fit: RewardTrainer, seed: int, warm: RewardModel | None, time_budget_s: float | None) -> str:
    """A name for all that decides what ``fit`` comes to."""
    data, labels = fit.data, fit.data.labels
    start = {} if warm is None else {name: tensor.detach().cpu().numpy() for name, tensor in warm.own_tensors().items()}
    return key_of(
        *(getattr(labels, name) for name in labels.__slots__),
        data.user_ids,
        data.response_ids,
        data.response_prompt,
        list(data.texts()),
        np.asarray(fit.user_vectors),
        asdict(fit.config),
        seed,
        time_budget_s,
        fit.processes.n,
        fit.processes.device.type,
        list(start),
        *start.values(),
    )


@dataclass(frozen=True)
class States:
    """The states that the processes of one training keep, each in a file of its own."""

    checkpoint: Checkpoint
    processes: Processes
    key: str

    @property
    def _part(self) -> str:
        return f"reward.{self.processes.index}"

    def found(self) -> dict | None:
        """The state to go on from; None unless all processes have one, and of the same step."""
        state = self.checkpoint.read(self._part, self.key)
        mine = np.zeros(self.processes.n, np.float32)
        mine[self.processes.index] = state["step"] if state else 0
        steps = self.processes.joined(mine)
        return state if steps[0] and (steps == steps[0]).all() else None

    @property
    def due(self) -> bool:
        """The first process decides, so that all write at the same step."""
        return bool(self.processes.agree(float(self.checkpoint.due)))

    def write(self, state: dict) -> None:
        self.checkpoint.write(self._part, self.key, state)


@dataclass
class TrainState:
    """Where a training is between two steps, beside its weights."""

    best: float  # log-loss on tuning labels
    kept: dict[str, Tensor]  # tensors of the model that had it
    begun: float  # on this process's clock, as if no time had passed between a kill and going on
    stale: int = 0  # evaluations since the best one
    step: int = 0


@dataclass
class RewardTrainer:
    """One training: what stays the same from step to step."""

    model: RewardModel
    data: TrainingData
    user_vectors: np.ndarray
    rng: np.random.Generator
    progress: Progress
    deadline: float | None
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        self.config = self.model.config
        self.users = self.model.standardise(self.user_vectors)
        self.side = nn.Parameter(torch.zeros((), device=self.model.device))
        self.steps_done = 0
        self.seconds_before = 0.0  # of training, by processes that were killed
        train, tune, test = split(self.data, self.config.holdout)
        self.held_rows = np.concatenate([tune, test])
        self.train_labels, self.tune_labels, self.test_labels = map(self.data.labels.take, (train, tune, test))
        self.margins = Margins(self.model, self._states())

    def _states(self) -> dict[int, Tensor]:
        """Hidden states of every text that a label speaks of, by row."""
        texts = list(self.data.texts())
        rows = np.unique(np.concatenate([self.data.labels.left, self.data.labels.right]))
        states: dict[int, Tensor] = {}
        for start in range(0, len(rows), 64):
            self.progress("reading texts", start, len(rows), math.nan)
            some = rows[start : start + 64]
            states.update(zip(some.tolist(), self.model.cache.get([texts[row] for row in some]), strict=True))
        return states

    def start(self, seed: int) -> None:
        """A first head and a first gate."""
        start_head(self.model, self.margins, self.train_labels, self.tune_labels)
        if self.config.n_experts and self.config.confidence:
            start_gate(self.model, self.users, seed)
            self._move_reference()

    def train(self, states: States | None = None, found: dict | None = None) -> None:
        """Steps under a cosine schedule until the end, the deadline, or no more gain on the tuning labels.

        Args:
            states: where to keep how far the training is.
            found: the state to go on from.
        """
        optimizer = self.processes.optimizer(self._optimizer())
        self.processes.same(self.model.own_tensors().values())
        batches = label_batches(self.train_labels, self.data.response_prompt, self.config.texts, self.rng)
        steps = self._steps()
        every = max(1, steps // EVALUATIONS)
        at = (
            self._taken_up(found, optimizer)
            if found
            else TrainState(self._tuning_loss(), self._snapshot(), begun=time.monotonic())
        )
        for step in range(at.step + 1, steps + 1):
            done = self.processes.agree(self._done(step, steps, at.begun))
            for group in optimizer.param_groups:
                group["lr"] = group["ease"] * self.config.lr * 0.5 * (1 + math.cos(math.pi * done))
            loss = self._step(next(batches), optimizer)
            self.steps_done = at.step = step
            self.progress("training reward", step, steps, loss)
            last = done >= 1 or step == steps
            if step % every == 0 or last:
                value = self._tuning_loss()
                self.progress("training reward" + HELD_OUT, step, steps, value)
                at.stale = 0 if value < at.best - 1e-4 else at.stale + 1
                if not at.stale:
                    at.best, at.kept = value, self._snapshot()
            if last or at.stale >= self.config.patience:
                break
            if states is not None and states.due:
                states.write(self._state(at, steps, optimizer))
        self.model.take(at.kept)

    def _state(self, at: TrainState, steps: int, optimizer: torch.optim.Optimizer) -> dict:
        """All that the next step reads and ``fit_reward`` does not make again."""
        return {
            "step": at.step,
            "steps": steps,
            "best": at.best,
            "kept": at.kept,
            "stale": at.stale,
            "model": self._snapshot(),
            "side": self.side.detach(),
            "optimizer": optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "torch": _torch_draws(self.model.device),
            "seconds": time.monotonic() - at.begun,
            "budget": None if self.deadline is None else self.deadline - at.begun,
        }

    def _taken_up(self, found: dict, optimizer: torch.optim.Optimizer) -> TrainState:
        """Put back what ``_state`` kept.  The batches need no more than ``rng``, which nobody draws from between them.

        The clock goes on where it stood, so that a deadline leaves the time that was left, and reading the texts once
        more takes nothing away from it.
        """
        self.model.take(found["model"])
        with torch.no_grad():
            self.side.copy_(found["side"])
        optimizer.load_state_dict(found["optimizer"])
        self.rng.bit_generator.state = found["rng"]
        _set_torch_draws(self.model.device, found["torch"])
        self.seconds_before = found["seconds"]
        begun = time.monotonic() - found["seconds"]
        if found["budget"] is not None:
            self.deadline = begun + found["budget"]
        return TrainState(found["best"], found["kept"], begun, found["stale"], found["step"])

    def _optimizer(self) -> torch.optim.Optimizer:
        others = [p for n, p in self.model.named_parameters() if p.requires_grad and not n.startswith("gate.")]
        groups = [
            {"params": others, "ease": 1.0},
            {"params": list(self.model.gate.parameters()), "ease": self.config.gate_lr},
            {"params": [self.side], "ease": 1.0, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=self.config.weight_decay)

    def _step(self, rows: np.ndarray, optimizer: torch.optim.Optimizer) -> float:
        labels = self.train_labels.take(rows)
        self.model.gate.train()  # noise on the logits; the frozen layers never leave eval
        p = self.model.gate(self.users)
        self.model.gate.eval()
        with self.model.autocast():
            margin = self.margins.of(labels, p, random_tokens(self.config.train_tokens))
        outcome, weight = (torch.from_numpy(column).to(margin) for column in (labels.outcome, labels.strength))
        each = F.binary_cross_entropy_with_logits(margin + self.side, outcome, reduction="none")
        loss = (weight * each).sum() / weight.sum()
        total = loss + self.config.balance * balance_loss(p) if self.config.n_experts else loss
        optimizer.zero_grad(set_to_none=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.processes.backward(total, parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        self._move_reference()
        return float(loss.detach())

    @torch.no_grad()
    def _move_reference(self) -> None:
        """Reference weight of an expert := mean weight of the users it serves; kept where it serves nobody."""
        if not self.config.n_experts:
            return
        weight, top = self.model.gate(self.users).max(-1)  # (U, G)
        for g in range(top.shape[1]):
            count = torch.bincount(top[:, g], minlength=self.config.n_experts)
            total = torch.zeros(self.config.n_experts, device=weight.device).index_add_(0, top[:, g], weight[:, g])
            self.model.reference[g] = torch.where(count > 0, total / count.clamp(min=1), self.model.reference[g])

    def _steps(self) -> int:
        """Steps that see as many labels as ``epochs`` passes over them would, and no fewer than ``min_steps``."""
        trial = label_batches(self.train_labels, self.data.response_prompt, self.config.texts, np.random.default_rng(0))
        mean = np.mean([len(next(trial)) for _ in range(12)])
        a_step = mean * self.processes.n
        return max(self.config.min_steps, math.ceil(self.config.epochs * len(self.train_labels) / a_step))

    def _done(self, step: int, steps: int, begun: float) -> float:
        """Share of the schedule that is behind, by steps or by the clock, whichever is further."""
        now = time.monotonic()
        by_clock = 0.0 if self.deadline is None else (now - begun) / max(self.deadline - begun, 1e-3)
        return min(1.0, max((step - 1) / steps, by_clock))

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.own_tensors().items()}

    def _tuning_loss(self) -> float:
        """Log-loss of some tuning labels, on as many tokens of a text as training sees."""
        labels = self.tune_labels.take(np.arange(min(len(self.tune_labels), MONITOR_LABELS)))
        logits = self._measured(labels, even_tokens(self.config.train_tokens))
        return self.processes.agree(float(log_losses(logits, labels.outcome).mean()))

    def _measured(self, labels: Comparisons, choose: Choose) -> np.ndarray:
        """Margins (n,) of labels, each process measuring a share that has texts in common."""
        mine = self.processes.share(np.argsort(labels.left, kind="stable"))
        found = np.zeros(len(labels), np.float32)
        found[mine] = self.margins.measured(labels.take(mine), self.users, choose)
        return self.processes.joined(found)

    def calibrate(self) -> dict:
        """Fit the temperature on the tuning labels; figures on the test labels, and the experts' load."""
        held = self.data.labels.take(self.held_rows)  # tuning labels, then test labels: in one go, they share texts
        tune, test = np.split(self._measured(held, all_tokens), [len(self.tune_labels)])
        self.model.calibration.fill_(fit_temperature(tune, self.tune_labels.outcome))
        told = measures(test / float(self.model.calibration), self.test_labels.outcome) | {
            "n_train": len(self.train_labels),
            "temperature": float(self.model.calibration),
            "side": float(self.side.detach()),
            "steps": self.steps_done,
        }
        if self.config.n_experts:
            with torch.no_grad():
                told |= load_report(self.model.gate(self.users))
        return told


def _torch_draws(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators: tokens are drawn on the processor, noise of the gate where the model is."""
    drawn = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        drawn["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        drawn["mps"] = torch.mps.get_rng_state()
    return drawn


def _set_torch_draws(device: torch.device, drawn: dict[str, Tensor]) -> None:
    torch.set_rng_state(drawn["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(drawn["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(drawn["mps"])


def split(data: TrainingData, holdout: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the labels to train, to tune and to report on, drawn by the ids of user and responses.

    A pair that somebody answers twice stays in one piece, and so does a label from fit to fit, but for the few at the
    border that moves as labels arrive.
    """
    labels = data.labels
    pairs = np.sort(data.response_ids[np.stack([labels.left, labels.right], 1)], axis=1)
    ids = np.ascontiguousarray(np.column_stack([data.user_ids[labels.user], pairs]), np.int64)
    order = np.argsort([zlib.crc32(row.tobytes(), 1) for row in ids], kind="stable")
    held = max(4, min(MOST_HELD, round(holdout * len(order))))
    return np.sort(order[held:]), order[: held // 2], order[held // 2 : held]


def label_batches(
    labels: Comparisons, prompt: np.ndarray, texts: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """For ever: rows of labels among about ``texts`` texts, drawn so that the labels share texts.

    Prompts are drawn by their number of labels; a prompt's texts come in whole where they fit, else by way of its
    labels, so that every draw has labels however sparse they are.
    """
    prompt_of = prompt[labels.left]
    rows_of = {int(p): np.flatnonzero(prompt_of == p) for p in np.unique(prompt_of)}
    while True:
        inside = np.zeros(len(prompt), bool)
        room = texts
        drawn = prompt_of[rng.integers(len(labels), size=4 * texts)]
        for p in dict.fromkeys(drawn.tolist()):
            rows = rng.permutation(rows_of[p])
            ends = np.stack([labels.left[rows], labels.right[rows]], 1).ravel()
            chosen = ends[np.sort(np.unique(ends, return_index=True)[1])][: max(2, room)]
            inside[chosen] = True
            room -= len(chosen)
            if room < 2:
                break
        found = np.flatnonzero(inside[labels.left] & inside[labels.right])
        yield found if len(found) <= LABELS_A_STEP else np.sort(rng.choice(found, LABELS_A_STEP, replace=False))


def fit_temperature(logits: np.ndarray, outcome: np.ndarray) -> float:
    """The T in [0.1, 10] with the least log-loss of sigmoid(logit / T); 1 where nothing was told."""
    if not np.any(logits):
        return 1.0
    grid = np.exp(np.linspace(math.log(0.1), math.log(10), 400))
    return float(grid[np.argmin([log_losses(logits / t, outcome).mean() for t in grid])])
