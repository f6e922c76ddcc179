"""Fit the personalised reward model to labels: Bradley-Terry on r_u(left) - r_u(right).

    loss = mean BCE(sigmoid(r_u(l) - r_u(r) + side), outcome) + balance * Switch load loss of the gate

computed from logits, with ties as one half; ``side`` is a nuisance parameter for position bias, which no score
contains and no label with an unknown position.  A step takes a few texts and all labels between them, see
``reward.margins``.

Several processes train together if ``accelerate launch`` starts them, each on its own batches (``distributed``).

The schedule counts steps, so the same data and seed give the same model on a slow day.  A time budget only ends a
training, and its metrics then say after how many of the planned steps (``cut``).

A killed training resumes from its last saved state (``checkpoint``) with the same steps.  On a processor it ends with
the same weights, bit for bit.

Labels are held out by the ids of user and responses: all labels of a user about a response, or none.  One half of
them decides when to stop and fits the temperature, and figures are reported on the other half.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.reward.backbone import Backbone, Resolver, load_backbone
from copl_core.reward.experts import balance_loss, load_report
from copl_core.reward.hidden import HiddenCache, StatesFolder, TextStates
from copl_core.reward.margins import ChooseTokens, Margins, all_tokens, even_tokens, random_tokens
from copl_core.reward.model import STRUCTURE, RewardConfig, RewardModel
from copl_core.reward.routes import chosen
from copl_core.reward.start import start_gate, start_head
from copl_core.training.checkpoint import Checkpoint, key_of
from copl_core.training.distributed import Processes
from copl_core.training.gate_rows import GateRows, labelled_prompts
from copl_core.training.influence import bounded_weight
from copl_core.training.losses import MAKING_MODULES, torch_generator
from copl_core.training.metrics import log_losses, measures
from copl_core.training.progress import HELD_OUT, Progress
from copl_core.training.split import draws, part_draws

FEWEST_LABELS = 8
FEWEST_HELD_OUT = 4  # labels
MOST_HELD_OUT = 2000  # labels; more of them cost time and add little precision
SPLIT_SALT = 3  # of the draw of held-out labels, which is another one than that of a full job
MONITOR_LABELS = 256  # most held-out labels of an evaluation during training
_PART = "reward.0"  # of a checkpoint; its name is that of the versions in which each process had its own
_DRAWS, _OTHERS = ("rng", "torch"), "others"  # in a state: random draws, and those of the processes after the first
TEXTS_AT_ONCE = 64  # read between two looks at the other processes
LABELS_PER_STEP = 4096  # most labels of a step, drawn from those between its texts
EVALUATIONS = 10  # about so many in a whole training
EARLIEST_STOP = 0.5  # of the planned steps, before which training never stops for want of improvement


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
    disk: StatesFolder | None = None,
    patience: float | None = None,
) -> RewardModel:
    """A reward model of all users of ``data``.

    Args:
        user_vectors: (U, d), row i belongs to ``data.user_ids[i]``.
        weights: gives the folder of bundled backbone weights by name.
        warm: start from the weights of this model if its structure and width are the same.
        cache: hidden states to use and to fill; it must belong to the same backbone.
        time_budget_s: seconds of training steps after which they are cut; reading texts does not count.
        checkpoint: where to save the state of the training, from which the same training resumes after a kill; that of
            the first process counts, for as many processes as before.
        disk: where the hidden states of texts are kept from fit to fit; without it they stay in memory.
        patience: seconds that this process waits for one that trains with it; None: as long as their group does.

    Returns:
        The model in eval mode, on ``device``; ``metrics`` has the held-out figures and the load of the experts.

    Raises:
        CoplError: too few labels, or vectors that do not belong to the users.
        RankLost: another process has ended or does not answer; the same training resumes from its last saved state.
    """
    _check(data, user_vectors)
    started = time.monotonic()
    processes = Processes(device, patience)
    with torch.random.fork_rng():
        with MAKING_MODULES:
            torch.manual_seed(seed)
            model, warmed = _model(config, np.shape(user_vectors)[1], weights, warm, cache, backbone)
        model.cache.disk = disk or model.cache.disk
        model.fit_normaliser(user_vectors)
        model.to(processes.device)
        model.fit_prompts([data.prompts[row] for row in labelled_prompts(data)])
        rng, report = processes.generator(seed), progress or (lambda *_: None)
        fit = RewardTrainer(model, data, user_vectors, rng, report, time_budget_s, processes, seed)
        states = States.of(checkpoint, processes, _key(fit, seed, warm if warmed else None, time_budget_s))
        found = states.found() if states is not None else None
        if not warmed and not found:
            fit.start(seed)
        fit.train(states, found)
        model.metrics = fit.calibrate() | {"seconds": round(time.monotonic() - started + fit.seconds_before, 2)}
    return model


def _check(data: TrainingData, user_vectors: np.ndarray) -> None:
    if len(user_vectors) != data.n_users:
        raise CoplError(f"got {len(user_vectors)} user vectors for {data.n_users} users: give one row per user")
    if len(data.labels) < FEWEST_LABELS:
        raise CoplError(
            f"got {len(data.labels)} labels, a reward model needs at least {FEWEST_LABELS}: collect more labels"
        )


def _model(
    config: RewardConfig,
    d_user: int,
    weights: Resolver,
    warm: RewardModel | None,
    cache: HiddenCache | None,
    backbone: Backbone | None,
) -> tuple[RewardModel, bool]:
    """(a model to train, whether it starts from the weights of ``warm``)."""
    known = [b for b in (backbone, warm and warm.backbone, cache and cache.backbone) if b]
    same = [b for b in known if b.is_for(config.backbone, config.last_layers, own_head=True)]
    found = same[0] if same else load_backbone(config.backbone, weights, config.last_layers)
    model = RewardModel(config, found, d_user)
    if cache is not None and (cache.backbone is found and cache.max_tokens == config.max_tokens):
        model.cache = cache
    if warm is None:
        return model, False
    fits = warm.d_user == d_user and all(
        getattr(warm.config, name) == getattr(model.config, name) for name in STRUCTURE
    )
    if fits:
        model.load_tensors({name: tensor.detach().cpu() for name, tensor in warm.adapter_state().items()})
    return model, fits


def _key(fit: RewardTrainer, seed: int, warm: RewardModel | None, time_budget_s: float | None) -> str:
    """A name for everything that determines the result of ``fit``."""
    data, labels = fit.data, fit.data.labels
    start = (
        {} if warm is None else {name: tensor.detach().cpu().numpy() for name, tensor in warm.adapter_state().items()}
    )
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
        fit.held_out_rows,
        fit.processes.n,
        fit.processes.device.type,
        list(start),
        *start.values(),
    )


@dataclass(frozen=True)
class States:
    """The saved states of one training.  The first process has them, with the random draws of all: that is the only
    thing in which their states differ.  So the training goes on where its states are, with processes anywhere.
    """

    checkpoint: Checkpoint | None  # of the first process
    processes: Processes
    key: str

    @classmethod
    def of(cls, checkpoint: Checkpoint | None, processes: Processes, key: str) -> States | None:
        """None where the first process saves nothing."""
        saves = processes.agree(float(checkpoint is not None))
        return cls(checkpoint if processes.main else None, processes, key) if saves else None

    def found(self) -> dict | None:
        """The state to resume from, in every process its own; None where there is none."""
        state = self.checkpoint.read(_PART, self.key) if self.checkpoint is not None else None
        others = (state or {}).get(_OTHERS, [])
        if len(others) != self.processes.n - 1:
            state = None  # of a version that saved those of each process by itself
        return self.processes.hand_out(lambda rank: state | others[rank - 1] if state and rank else state)

    @property
    def due(self) -> bool:
        """Whether to save a state now; the first process decides, so that all save the same step."""
        return bool(self.processes.agree(float(self.checkpoint is not None and self.checkpoint.due)))

    def write(self, state: dict) -> None:
        _, *others = self.processes.gather({name: state[name] for name in _DRAWS}) or [None]
        if self.checkpoint is not None:
            self.checkpoint.write(_PART, self.key, state | ({_OTHERS: others} if others else {}))


@dataclass
class TrainState:
    """The state of a training between two steps, apart from its weights."""

    best_loss: float  # log-loss on tuning labels
    best_tensors: dict[str, Tensor]  # of the model with that loss
    started: float  # on this process's clock, without the time between a kill and its resumption
    stale: int = 0  # evaluations since the best one
    step: int = 0


@dataclass
class RewardTrainer:
    """One training: everything that stays the same between steps."""

    model: RewardModel
    data: TrainingData
    user_vectors: np.ndarray
    rng: np.random.Generator
    progress: Progress
    budget: float | None  # seconds of steps
    processes: Processes = field(default_factory=Processes)
    seed: int = 0

    def __post_init__(self) -> None:
        self.config = self.model.config
        # Generators of its own: a graph may be fitted beside it, in another thread that uses torch's.
        self.token_draws = torch_generator(self.seed)
        self.gate_draws = self.model.gate.generator = torch_generator(self.seed, self.model.device)
        self.gate_rows = GateRows(self.model, self.user_vectors, self.data)
        self.side = nn.Parameter(torch.zeros((), device=self.model.device))
        self.steps_done = self.planned_steps = 0
        self.cut = False
        self.seconds_before = 0.0  # of training in processes that were killed
        train, tune, test = split(self.data, self.config.holdout)
        self.held_out_rows = np.concatenate([tune, test])
        self.train_labels, self.tune_labels, self.test_labels = map(self.data.labels.take, (train, tune, test))
        self.train_weight = bounded_weight(self.train_labels, self.train_labels.strength, self.data.n_users)
        self.margins = Margins(self.model, self._states())

    def _states(self) -> TextStates:
        """Hidden states by row of the text, for all texts that have labels; each is computed here once, by one of the
        processes that share a folder of states.
        """
        rows = np.unique(np.concatenate([self.data.labels.left, self.data.labels.right]))
        states = TextStates(self.model.cache, list(self.data.texts()), rows.tolist())
        for done in range(0, len(rows), TEXTS_AT_ONCE):
            self.progress("reading texts", done, len(rows), None)
            some = rows[done : done + TEXTS_AT_ONCE]
            if self.processes.n > 1 and self.model.cache.disk is not None:
                states.prepare(self.processes.share(some))
            self.processes.wait()  # so that one that is stopped is noticed before all texts are read
            states.prepare(some)
        return states

    def start(self, seed: int) -> None:
        """Initialise the head and the gate."""
        start_head(self.model, self.margins, self.train_labels, self.tune_labels)
        if self.config.n_experts and self.config.confidence:
            start_gate(self.model, self.gate_rows.served, seed)
            self._move_reference()

    def train(self, states: States | None = None, found: dict | None = None) -> None:
        """Train under a cosine schedule until its end, no more improvement on the tuning labels, or the time budget.

        Steps are long in the first half of the schedule, and the tuning loss often rises before the experts part: only
        in the second half does no improvement end the training.

        Args:
            states: where to save the state of the training.
            found: the state to resume from.
        """
        optimizer = self.processes.optimizer(self._optimizer())
        self.processes.same(self.model.adapter_state().values())
        batches = label_batches(self.train_labels, self.data.response_prompt, self.config.texts, self.rng)
        self.planned_steps = steps = self._steps()
        every = max(1, steps // EVALUATIONS)
        state = self._resume(found, optimizer) if found else self._first_state()
        for step in range(state.step + 1, steps + 1):
            done = (step - 1) / steps
            for group, lr_scale in zip(optimizer.param_groups, self._lr_scales(), strict=True):
                group["lr"] = lr_scale * self.config.lr * 0.5 * (1 + math.cos(math.pi * done))
            loss = self._step(next(batches), optimizer)
            self.steps_done = state.step = step
            self.progress("training reward", step, steps, loss)
            self.cut = step < steps and self._out_of_time(state.started)
            last = self.cut or step == steps
            if step % every == 0 or last:
                value = self._tuning_loss()
                self.progress("training reward" + HELD_OUT, step, steps, value)
                state.stale = 0 if value < state.best_loss - 1e-4 else state.stale + 1
                if not state.stale:
                    state.best_loss, state.best_tensors = value, self._tensors()
            if last or (state.stale >= self.config.patience and step >= steps * EARLIEST_STOP):
                break
            if states is not None and states.due:
                states.write(self._saved(state, steps, optimizer))
        self.model.load_tensors(state.best_tensors)

    def _first_state(self) -> TrainState:
        return TrainState(self._tuning_loss(), self._tensors(), started=time.monotonic())

    def _saved(self, state: TrainState, steps: int, optimizer: torch.optim.Optimizer) -> dict:
        """Everything that the next step reads and that ``fit_reward`` does not recompute."""
        return {
            "step": state.step,
            "steps": steps,
            "best": state.best_loss,
            "kept": state.best_tensors,
            "stale": state.stale,
            "model": self._tensors(),
            "side": self.side.detach(),
            "optimizer": optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "torch": self._random_states(),
            "seconds": time.monotonic() - state.started,
            "budget": self.budget,
        }

    def _resume(self, found: dict, optimizer: torch.optim.Optimizer) -> TrainState:
        """Restore what ``_saved`` returned.  The batches need only ``rng``, which nothing else draws from in between.

        The clock continues from the saved time, so as much of the budget is left as before the kill.
        """
        self.model.load_tensors(found["model"])
        with torch.no_grad():
            self.side.copy_(found["side"])
        optimizer.load_state_dict(found["optimizer"])
        self.rng.bit_generator.state = found["rng"]
        self._set_random_states(found["torch"])
        self.seconds_before = found["seconds"]
        started = time.monotonic() - found["seconds"]
        return TrainState(found["best"], found["kept"], started, found["stale"], found["step"])

    def _random_states(self) -> dict[str, Tensor]:
        """States of all generators; dropout draws from torch's own."""
        own = {"tokens": self.token_draws.get_state(), "gate": self.gate_draws.get_state()}
        return _torch_rng_states(self.model.device) | own

    def _set_random_states(self, states: dict[str, Tensor]) -> None:
        _set_torch_rng_states(self.model.device, states)
        self.token_draws.set_state(states["tokens"])
        self.gate_draws.set_state(states["gate"])

    def _optimizer(self) -> torch.optim.Optimizer:
        others = [p for n, p in self.model.named_parameters() if p.requires_grad and not n.startswith("gate.")]
        groups: list[dict] = [
            {"params": others},
            {"params": list(self.model.gate.parameters())},
            {"params": [self.side], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=self.config.weight_decay)

    def _lr_scales(self) -> tuple[float, ...]:
        """The factor of the learning rate of each parameter group; there is no gate without experts."""
        return (1.0, self.config.gate_lr, 1.0) if self.config.n_experts else (1.0, 1.0)

    def _step(self, rows: np.ndarray, optimizer: torch.optim.Optimizer) -> float:
        read, labels = self.gate_rows.of(self.train_labels.take(rows))
        served = self.gate_rows.served
        self.model.gate.train()  # adds noise to the logits; the frozen layers stay in eval mode
        p = self.model.gate(read)
        p_served = p if read is served else self.model.gate(served)
        self.model.gate.eval()
        with self.model.autocast():
            margin = self.margins.of(labels, p, random_tokens(self.config.train_tokens, self.token_draws))
        columns = labels.outcome, self.train_weight[rows], labels.position_known
        outcome, weight, known = (torch.from_numpy(column).to(margin) for column in columns)
        each = F.binary_cross_entropy_with_logits(margin + self.side * known, outcome, reduction="none")
        loss = (weight * each).sum() / weight.sum()
        total = loss + self.config.balance * balance_loss(p_served) if self.config.n_experts else loss
        optimizer.zero_grad(set_to_none=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.processes.backward(total, parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        self._move_reference()
        return float(loss.detach())

    @torch.no_grad()
    def _move_reference(self) -> None:
        """Set the reference weight of each expert to the mean weight of those whose top expert it is; without any it
        stays unchanged."""
        if not self.config.n_experts:
            return
        weights, experts = chosen(self.model.gate(self.gate_rows.served), self.config.routing)
        first = weights.argmax(-1, keepdim=True)
        weight, top = (of.gather(-1, first)[..., 0] for of in (weights, experts))  # (U, G)
        for g in range(top.shape[1]):
            count = torch.bincount(top[:, g], minlength=self.config.n_experts)
            total = torch.zeros(self.config.n_experts, device=weight.device).index_add_(0, top[:, g], weight[:, g])
            self.model.reference[g] = torch.where(count > 0, total / count.clamp(min=1), self.model.reference[g])

    def _steps(self) -> int:
        """Steps that see as many labels as ``epochs`` passes over the data, within ``min_steps`` and ``max_steps``."""
        if self.config.steps:
            return self.config.steps
        sample = label_batches(
            self.train_labels, self.data.response_prompt, self.config.texts, np.random.default_rng(0)
        )
        mean = np.mean([len(next(sample)) for _ in range(12)])
        per_step = mean * self.processes.n
        wanted = math.ceil(self.config.epochs * len(self.train_labels) / per_step)
        return max(self.config.min_steps, min(self.config.max_steps, wanted))

    def _out_of_time(self, started: float) -> bool:
        """Whether the budget is spent; the first process decides for all."""
        spent = self.budget is not None and time.monotonic() - started >= self.budget
        return bool(self.processes.agree(float(spent)))

    def _tensors(self) -> dict[str, Tensor]:
        """A copy of the model's tensors."""
        return {name: tensor.detach().clone() for name, tensor in self.model.adapter_state().items()}

    def _tuning_loss(self) -> float:
        """Log-loss of some tuning labels, on as many tokens per text as in training."""
        labels = self.tune_labels.take(np.arange(min(len(self.tune_labels), MONITOR_LABELS)))
        logits = self._measured(labels, even_tokens(self.config.train_tokens))
        return self.processes.agree(float(log_losses(logits, labels.outcome).mean()))

    def _measured(self, labels: Comparisons, choose: ChooseTokens) -> np.ndarray:
        """Margins (n,) of labels; each process measures labels that share texts."""
        own = self.processes.share(np.argsort(labels.left, kind="stable"))
        margins = np.zeros(len(labels), np.float32)
        rows, of_rows = self.gate_rows.of(labels.take(own))
        margins[own] = self.margins.measured(of_rows, rows, choose)
        return self.processes.joined(margins)

    def calibrate(self) -> dict:
        """Fit the temperature on the tuning labels; returns figures on the test labels and the experts' load."""
        held_out = self.data.labels.take(self.held_out_rows)  # tuning labels, then test labels, which share texts
        tune, test = np.split(self._measured(held_out, all_tokens), [len(self.tune_labels)])
        self.model.calibration.fill_(fit_temperature(tune, self.tune_labels.outcome))
        metrics = measures(test / float(self.model.calibration), self.test_labels.outcome) | {
            "n_train": len(self.train_labels),
            "temperature": float(self.model.calibration),
            "side": float(self.side.detach()),
            "steps": self.steps_done,
            "planned_steps": self.planned_steps,
            "cut": self.cut,
            "processes": self.processes.n,
        }
        if self.config.n_experts:
            with torch.no_grad():
                metrics |= load_report(self.model.gate(self.gate_rows.served))
        return metrics


def _torch_rng_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators: tokens are drawn on the processor, noise of the gate on the model's device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_torch_rng_states(device: torch.device, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states["mps"])


def split(data: TrainingData, holdout: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the training, tuning and test labels.

    About a ``holdout`` share is held out, ``MOST_HELD_OUT`` labels at most and ``FEWEST_HELD_OUT`` at least, so that no
    response of a held-out label occurs in a training label of the same user (``training.split.part_draws``).  Where so
    few labels hang together so closely that less than half of them would remain, single pairs are held out.
    """
    labels, ids = data.labels, _label_ids(data)
    number = part_draws(*ids, SPLIT_SALT)
    latest = number.max(1)  # of the two draws of a label: both are below a share where the label is held out
    share = min(holdout, MOST_HELD_OUT / max(1, len(labels)))
    share = max(share, np.nextafter(np.sort(latest)[min(FEWEST_HELD_OUT, len(labels)) - 1], 1))
    train, held_out = np.flatnonzero(number.min(1) >= share), np.flatnonzero(latest < share)
    if 2 * len(train) < len(labels):
        latest = draws("pair", *ids, SPLIT_SALT)[:, 0]
        order = np.argsort(latest, kind="stable")
        n_held_out = max(FEWEST_HELD_OUT, round(holdout * len(order)))
        train, held_out = np.sort(order[n_held_out:]), order[:n_held_out]
    held_out = held_out[np.argsort(latest[held_out], kind="stable")]
    half = len(held_out) // 2
    half = np.searchsorted(latest[held_out], latest[held_out[half]]) or half  # no part is cut, unless there is one
    return train, held_out[:half], held_out[half:]


def _label_ids(data: TrainingData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids (N,) of the user, the left and the right response of each label."""
    labels = data.labels
    return data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]


def label_batches(
    labels: Comparisons, prompt: np.ndarray, texts: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """An endless iterator over rows of labels between about ``texts`` texts, drawn so that the labels share texts.

    Prompts are drawn in proportion to their labels.  All texts of a prompt are taken where they fit, else the texts of
    some of its labels, so every batch has labels, however sparse they are.
    """
    prompt_of = prompt[labels.left]
    rows_of = {int(p): np.flatnonzero(prompt_of == p) for p in np.unique(prompt_of)}
    while True:
        inside = np.zeros(len(prompt), bool)
        left_over = texts
        drawn = prompt_of[rng.integers(len(labels), size=4 * texts)]
        for p in dict.fromkeys(drawn.tolist()):
            rows = rng.permutation(rows_of[p])
            ends = np.stack([labels.left[rows], labels.right[rows]], 1).ravel()
            chosen = ends[np.sort(np.unique(ends, return_index=True)[1])][: max(2, left_over)]
            inside[chosen] = True
            left_over -= len(chosen)
            if left_over < 2:
                break
        found = np.flatnonzero(inside[labels.left] & inside[labels.right])
        yield found if len(found) <= LABELS_PER_STEP else np.sort(rng.choice(found, LABELS_PER_STEP, replace=False))


def fit_temperature(logits: np.ndarray, outcome: np.ndarray) -> float:
    """The T in [0.1, 10] with the least log-loss of sigmoid(logit / T); 1 where all logits are zero."""
    if not np.any(logits):
        return 1.0
    grid = np.exp(np.linspace(math.log(0.1), math.log(10), 400))
    return float(grid[np.argmin([log_losses(logits / t, outcome).mean() for t in grid])])
