"""The personalised reward model: r_u(prompt, response), with the user's expert inside the language model.

CoPL (arXiv 2503.01658): see ``experts`` for the layer and ``backbone`` for the frozen model around it.  A scalar head
reads the pooled last hidden state, and a label is Bradley-Terry on the difference of two rewards.

The paper's reward is f_e(t; w_u), the reward of text t through expert e at the user's weight.  Since w_u differs
between users, N users need N passes per text.  But w only scales a low-rank change, so f_e is nearly linear in w, and
we use the line through two of its points:

    r_u(t) = f(t; 0) + w_u / w_e (f_e(t; w_e) - f(t; 0)),     w_e = mean weight of the training users of expert e.

It is exact for the shared part and for the average user of the expert.  It costs one pass per text for each expert in
use and one for the shared LoRA, M + 1 for any number of users.  Training uses the same line, whose slope trains the
gate, so serving matches training.  ``exact=True`` gives the paper's form.  ``routes`` has this sum for users of several
experts.

The gate may read the prompt beside the user (``prompts``).  A user's experts then differ between prompts, and M + 1
passes per text still serve any number of users.

Shapes: N users, T texts, Q prompts, M experts, G gates (1, or k with ``gate="layer"``), d_user the width of user
vectors, d that of the backbone.  With a gate per layer a route of one expert has one expert per layer, and the users
need one pass per distinct route, plus 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from copl_core.config import GATE_INPUTS, ROUTINGS
from copl_core.records import CoplError
from copl_core.reward.backbone import Backbone, Resolver, load_backbone, matrix_products, recompute_layers, run_upper
from copl_core.reward.experts import Gate, put_experts
from copl_core.reward.hidden import HiddenCache, pad_states
from copl_core.reward.prompts import KEPT, prompt_states, spread
from copl_core.reward.routes import Routes, chosen, routes_of

FORMAT = 1
ATTENTION_CELLS = 600_000  # rows x tokens^2 per pass: on a CPU all attention probabilities are in memory
TEXTS_AT_ONCE = 256  # whose states are in memory together
STRUCTURE = (
    "backbone",
    "last_layers",
    "targets",
    "rank",
    "alpha",
    "n_experts",
    "gate",
    "gate_hidden",
    "gate_input",
    "routing",
    "temperature",
    "published",
    "max_tokens",
    "own_head",
)  # the fields that must be equal for a warm start

# The reward of a decoder is read from its last token only: it needs more tokens of the text, smaller steps, and a
# training without early stopping (a patience larger than the number of evaluations).
DECODER = {"train_tokens": 64, "lr": 1e-3, "patience": 20}
BY_BACKBONE: dict[str, dict] = {"minilm": {}, "smollm2": DECODER}  # differences from the defaults of ``RewardConfig``


@dataclass(frozen=True)
class RewardConfig:
    """Settings of a reward model and its training, validated on construction and saved beside the weights.

    The defaults were measured with the 22 M encoder on a CPU; the paper uses lr 5e-5, all layers and no balance loss.
    ``for_backbone`` has the defaults of another backbone.
    """

    backbone: str = "minilm"  # bundled name, folder or Hugging Face id
    last_layers: int = 2  # k: the last k layers carry experts, the others run once per text
    targets: tuple[str, ...] | None = None  # linear layers that carry experts; None: query and value projections
    rank: int = 8
    alpha: float = 16.0  # s = alpha / rank
    dropout: float = 0.0  # of the inputs of the LoRAs
    n_experts: int = 8  # 0: one reward for everyone
    gate: str = "shared"  # "shared": one gate for all layers; "layer": one per layer
    gate_input: str = "user"  # what the gate reads: "user", or "user+prompt" where tastes differ between topics
    gate_hidden: int = 256
    routing: str = "top1"  # experts of a user: "top1" as in the paper, "top2", or "soft" for all (``reward.routes``)
    noise: float = 0.1  # standard deviation of the noise on gate logits in training
    temperature: float = 1.0  # tau of the gate
    published: bool = False  # apply w twice, as the published code does
    balance: float = 0.5  # weight of the balance loss; at 0.1 loads differ by a factor of 4 at equal accuracy
    max_tokens: int = 192
    train_tokens: int = 32  # tokens per text in a training pass, drawn at random; 0: all
    texts: int = 24  # per training step
    lr: float = 4e-3
    weight_decay: float = 0.01
    epochs: float = 4.0
    min_steps: int = 60  # for small data, where each step sees most of the labels
    max_steps: int = 80  # for large data: about four minutes on one core
    steps: int = 0  # exactly so many; 0: as the three fields above say
    patience: int = 3  # evaluations without improvement before training stops
    gate_lr: float = 1.0  # learning rate of the gate, as a multiple of lr
    confidence: float = 0.6  # initial mean weight of the top expert; 0: the gate starts untrained
    holdout: float = 0.15  # share of labels for early stopping, calibration and the reported figures
    checkpoint: bool = False  # run layers twice in training instead of storing activations: for many layers
    precision: str = "auto"  # of matrix products: "float32", "bfloat16", or "auto" (bfloat16 where it is native)
    own_head: bool = False  # the reward starts as the score of a reward-trained backbone; the backbone says so, not you

    def __post_init__(self) -> None:
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))
        for name in ("last_layers", "rank", "gate_hidden", "max_tokens", "texts", "patience", "min_steps", "max_steps"):
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in ("n_experts", "noise", "balance", "train_tokens", "weight_decay", "steps"):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("alpha", "temperature", "lr", "gate_lr", "epochs"):
            self._need(name, getattr(self, name) > 0, "more than 0")
        self._need("train_tokens", self.train_tokens == 0 or self.train_tokens >= 2, "0 or at least 2")
        self._need("confidence", 0 <= self.confidence < 1, "in [0, 1)")
        self._need("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        self._need("holdout", 0 < self.holdout < 1, "in (0, 1)")
        self._need("gate", self.gate in ("shared", "layer"), '"shared" or "layer"')
        self._need("gate_input", self.gate_input in GATE_INPUTS, '"user" or "user+prompt"')
        self._need("routing", self.routing in ROUTINGS, '"top1", "top2" or "soft"')
        self._need("precision", self.precision in ("auto", "float32", "bfloat16"), '"auto", "float32" or "bfloat16"')

    @classmethod
    def for_backbone(cls, name: str, **changes: Any) -> RewardConfig:
        """The settings measured for a backbone, with ``changes``; other backbones get those of a decoder."""
        return cls(**{"backbone": name, **BY_BACKBONE.get(name, DECODER), **changes})

    def _need(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise CoplError(f"RewardConfig.{name} is {getattr(self, name)!r}: it must be {what}")


class RewardModel(nn.Module):
    """Reward of any text for any user vector.  Create it with ``fit_reward`` or ``RewardModel.load``.

    Args:
        backbone: the frozen model; many reward models can share it.
        d_user: width of user vectors.  The model centres and scales them, so any embedding can be used.
    """

    user_mean: Tensor  # (d_user,)
    user_scale: Tensor  # ()
    reference: Tensor  # (G, M) w_e of each gate and expert
    calibration: Tensor  # () temperature of reward differences
    prompt_mean: Tensor  # (d,) of the training prompts; these three only where the gate sees the prompt
    prompt_scale: Tensor  # ()
    prompts: Tensor  # (KEPT, d) states of some training prompts

    def __init__(self, config: RewardConfig, backbone: Backbone, d_user: int) -> None:
        super().__init__()
        if d_user < 1:
            raise CoplError(f"user vectors have width {d_user}: give vectors of at least one number")
        config = replace(config, own_head=backbone.own_head is not None)
        self.config, self.backbone, self.d_user = config, backbone, d_user
        self.upper = backbone.upper()
        per_layer = config.gate == "layer"
        self.routing = put_experts(
            self.upper,
            config.targets or backbone.targets(),
            config.n_experts,
            config.rank,
            config.alpha,
            config.dropout,
            per_layer,
        )
        if config.checkpoint:
            recompute_layers(self.upper, self._current_route)
        n_gates = config.last_layers if per_layer else 1
        d_gate = d_user + (backbone.width if self.sees_prompt else 0)
        self.gate = Gate(d_gate, config.n_experts, n_gates, config.gate_hidden, config.noise, config.temperature)
        self.head = _first_head(backbone)
        self.register_buffer("user_mean", torch.zeros(d_user))
        self.register_buffer("user_scale", torch.ones(()))
        self.register_buffer("reference", torch.full((n_gates, config.n_experts), 1 / max(config.n_experts, 1)))
        self.register_buffer("calibration", torch.ones(()))
        if self.sees_prompt:
            self.register_buffer("prompt_mean", torch.zeros(backbone.width))
            self.register_buffer("prompt_scale", torch.ones(()))
            self.register_buffer("prompts", torch.zeros(KEPT, backbone.width))
        self.cache = HiddenCache(backbone, config.max_tokens, precision=config.precision)
        self.metrics: dict = {}
        self.eval().to("cpu")

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @property
    def sees_prompt(self) -> bool:
        """Whether the gate reads the prompt beside the user."""
        return self.config.gate_input == "user+prompt" and self.config.n_experts > 0

    # ---- scoring ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def rewards(
        self, texts: Sequence[tuple[str, str]], user_vectors: np.ndarray, *, exact: bool = False, rows: int = 64
    ) -> np.ndarray:
        """Rewards (N, T) float32 of texts (prompt, response) for users (N, d_user).

        Args:
            exact: the paper's form, with N passes per text instead of at most M + 1.
            rows: per pass through the upper layers.
        """
        if len(texts) > TEXTS_AT_ONCE:
            parts = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
            return np.concatenate([self.rewards(part, user_vectors, exact=exact, rows=rows) for part in parts], 1)
        users = self.standardise(user_vectors)
        out = np.zeros((len(users), len(texts)), np.float32)
        if len(users) and len(texts):
            for some, p in self._gated([prompt for prompt, _ in texts], users):
                out[:, some] = self._rewards([texts[t] for t in some], p, exact, rows)
        return out

    def _gated(self, prompts: Sequence[str], users: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """(texts that share gate probabilities, these probabilities (N, G, M)); ``prompts`` are those of the texts."""
        if not self.sees_prompt:
            yield list(range(len(prompts))), self.gate(users)
            return
        names = list(dict.fromkeys(prompts))
        for name, vector in zip(names, self.prompt_vectors(names), strict=True):
            yield [t for t, prompt in enumerate(prompts) if prompt == name], self.gate(_beside(users, vector))

    def _rewards(self, texts: Sequence[tuple[str, str]], p: Tensor, exact: bool, rows: int) -> np.ndarray:
        """Rewards (N, T) of texts for users with gate probabilities ``p`` (N, G, M)."""
        states = self.cache.get(texts)
        rows = max(1, min(rows, ATTENTION_CELLS // max(len(s) for s in states) ** 2))
        if not self.config.n_experts:
            return self._run_passes(states, None, None, rows).expand(len(p), -1).numpy()
        if exact:
            weight, expert = chosen(p, self.config.routing)
            return self._run_passes(states, expert, self.strength(weight), rows).numpy()
        routes = self.route(p)
        shared, *special = self._run_passes(states, *self.passes(routes), rows)
        change = (torch.stack(special) - shared)[routes.of_user.cpu()]  # (N, L, T)
        return (shared + (routes.ratio.cpu()[..., None] * change).sum(1)).numpy()

    @torch.no_grad()
    def gates(self, user_vectors: np.ndarray, prompts: Sequence[str] = ()) -> np.ndarray:
        """Gate probabilities (N, G, M) float32; M is 0 for a uniform model.

        Args:
            prompts: of a gate that sees the prompt the mean over these, and without any over some of the training.
        """
        users = self.standardise(user_vectors)
        if not self.sees_prompt:
            return self.gate(users).cpu().numpy()
        vectors = self.prompt_vectors(list(prompts)) if prompts else self._prompt_scaled(self.prompts)
        return torch.stack([self.gate(_beside(users, vector)) for vector in vectors]).mean(0).cpu().numpy()

    # ---- parts, shared with training -------------------------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> RewardModel:
        """Move the model and select the fastest attention (in bfloat16 on a CPU, eager is 3 times as fast as sdpa)."""
        super().to(*args, **kwargs)
        self.upper.set_attn_implementation("eager" if self.device.type == "cpu" else "sdpa")
        self.cache.device = self.device
        return self

    def autocast(self) -> torch.autocast:
        """Matrix products in the precision of the config."""
        return matrix_products(self.device, self.config.precision)

    def standardise(self, user_vectors: np.ndarray) -> Tensor:
        """(N, d_user) centred on the training users, one scale for all columns."""
        vectors = np.ascontiguousarray(user_vectors, np.float32)
        finite = bool(np.isfinite(vectors).all())
        if vectors.ndim != 2 or vectors.shape[1] != self.d_user or not finite:
            raise CoplError(
                f"user vectors have shape {vectors.shape}{'' if finite else ' and missing values'}: this reward model "
                f"needs finite numbers of shape (N, {self.d_user})"
            )
        return (torch.from_numpy(vectors).to(self.device) - self.user_mean) / self.user_scale

    def prompt_vectors(self, prompts: Sequence[str]) -> Tensor:
        """What the gate reads of prompts, (Q, d)."""
        return self._prompt_scaled(prompt_states(self.cache, prompts).to(self.device))

    def _prompt_scaled(self, states: Tensor) -> Tensor:
        """States centred on the training prompts, with one scale for all columns: that of a whole user vector, so that
        the many columns of a prompt do not drown the few of a user."""
        return (states - self.prompt_mean) / self.prompt_scale * (self.d_user / self.backbone.width) ** 0.5

    def strength(self, weight: Tensor) -> Tensor:
        """The factor of an expert: w, or w squared as in the published code."""
        return weight.square() if self.config.published else weight

    def route(self, p: Tensor) -> Routes:
        """The routes of users by their gate probabilities (N, G, M); their parts in the passes keep their gradient."""
        return routes_of(p, self.reference, self.config.routing, self.strength)

    def passes(self, routes: Routes) -> tuple[Tensor, Tensor]:
        """Experts and strengths (K + 1, G) of the passes that ``routes`` needs; the first is the shared LoRA alone."""
        return self.with_shared(routes.expert, routes.strength)

    @staticmethod
    def with_shared(expert: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """The same passes (K, G) after one through the shared LoRA alone, which has strength 0."""
        nothing = torch.zeros_like(expert[:1])
        return torch.cat([nothing, expert]), torch.cat([nothing.to(strength.dtype), strength])

    def run(
        self,
        states: Tensor,
        mask: Tensor,
        expert: Tensor | None,
        strength: Tensor | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Rewards (B,) of padded states (B, T, d), each row through its experts at its strengths: (B, G), or (B, G, S)
        for several at once."""
        with self._routed(expert, strength):
            last = run_upper(self.upper, states, mask, positions)
        return self.head(self.backbone.pool(last.float(), mask)).squeeze(-1)

    @contextmanager
    def _routed(self, expert: Tensor | None, strength: Tensor | None) -> Iterator[None]:
        self.routing.expert, self.routing.weight = expert, strength
        try:
            yield
        finally:
            self.routing.expert = self.routing.weight = None

    def _current_route(self) -> AbstractContextManager:
        """Restores the routing of the current call when one of its layers runs again."""
        return self._routed(self.routing.expert, self.routing.weight)

    def _run_passes(
        self, states: Sequence[Tensor], expert: Tensor | None, strength: Tensor | None, rows: int
    ) -> Tensor:
        """Rewards (P, T) on the CPU of every text in each of P passes; texts of similar length share a batch."""
        n_passes = 1 if expert is None else len(expert)
        out = torch.empty(n_passes, len(states))
        order = sorted(((len(s), t, p) for t, s in enumerate(states) for p in range(n_passes)))
        for start in range(0, len(order), rows):
            _, text, row = (torch.tensor(column) for column in zip(*order[start : start + rows], strict=True))
            padded, mask = pad_states([states[t] for t in text], self.device)
            route = row.to(self.device)
            experts = None if expert is None else expert[route]
            strengths = None if strength is None else strength[route]
            with self.autocast():
                out[row, text] = self.run(padded, mask, experts, strengths).float().cpu()
        return out

    # ---- saving ----------------------------------------------------------------------------------------------------

    def adapter_state(self) -> dict[str, Tensor]:
        """All tensors outside the frozen backbone: adapters, gate, head, buffers."""
        state = self.state_dict(keep_vars=True)
        return {name: t for name, t in state.items() if not name.startswith("upper.") or "lora_" in name}

    def save(self, folder: Path) -> None:
        """Write ``reward.safetensors`` and ``reward.json`` into a folder, which is created if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in self.adapter_state().items()},
            folder / "reward.safetensors",
        )
        facts = {"format": FORMAT, "d_user": self.d_user, "config": asdict(self.config), "metrics": self.metrics}
        (folder / "reward.json").write_text(json.dumps(facts, indent=1))

    @classmethod
    def load(
        cls, folder: Path, weights: Resolver, device: torch.device | str = "cpu", backbone: Backbone | None = None
    ) -> RewardModel:
        """The model that ``save`` wrote; its rewards are bit-equal on the same machine.

        Args:
            weights: gives the folder of bundled backbone weights by name.
            backbone: a loaded backbone, which is shared if it is the right one.
        """
        try:
            facts = json.loads((folder / "reward.json").read_text())
            tensors = load_file(folder / "reward.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise CoplError(
                f"no reward model can be read from {folder} ({error}): train one, or name the folder that "
                "has reward.json and reward.safetensors"
            ) from error
        if facts["format"] != FORMAT:
            raise CoplError(
                f"{folder} has a reward model of format {facts['format']}, this version reads {FORMAT}: train it again"
            )
        if names := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
            raise CoplError(
                f"the reward model in {folder} has numbers that are not finite (in {', '.join(names[:3])}): choose "
                "another snapshot as champion, or train it again"
            )
        config = RewardConfig(**facts["config"])
        if backbone is None or not backbone.is_for(config.backbone, config.last_layers, config.own_head):
            backbone = load_backbone(config.backbone, weights, config.last_layers, own_head=config.own_head)
        model = cls(config, backbone, facts["d_user"])
        model.load_tensors(tensors)
        model.metrics = facts["metrics"]
        return model.to(device)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copy the ``adapter_state`` of a model of the same structure; names and shapes must match exactly."""
        own = self.adapter_state()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in tensors.items()}:
            odd = sorted(set(own) ^ set(tensors)) or "the same names in other shapes"
            raise CoplError(
                f"the saved tensors do not fit this reward model ({odd}): load them with the config of their model"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])

    def fit_normaliser(self, user_vectors: np.ndarray) -> None:
        """Set the centre and the scale of user vectors (U, d_user)."""
        vectors = torch.from_numpy(np.ascontiguousarray(user_vectors, np.float32)).to(self.device)
        _set_normaliser(self.user_mean, self.user_scale, vectors)

    def fit_prompts(self, prompts: Sequence[str]) -> None:
        """Set the centre and the scale of the prompts, and keep the states of some, where the gate sees the prompt."""
        if not self.sees_prompt:
            return
        states = prompt_states(self.cache, prompts).to(self.device)
        _set_normaliser(self.prompt_mean, self.prompt_scale, states)
        self.prompts.copy_(states[torch.from_numpy(spread(len(prompts))).to(self.device)])


def _beside(users: Tensor, prompt: Tensor) -> Tensor:
    """Users (N, d_user) with the same prompt (d,) beside each."""
    return torch.cat([users, prompt.expand(len(users), -1)], 1)


def _set_normaliser(mean: Tensor, scale: Tensor, vectors: Tensor) -> None:
    """Set the mean (d,) and the scale () to those of ``vectors`` (N, d)."""
    mean.copy_(vectors.mean(0))
    deviation = float((vectors - mean).square().mean().sqrt())
    scale.fill_(deviation if math.isfinite(deviation) and deviation > 1e-8 else 1.0)


def _first_head(backbone: Backbone) -> nn.Linear:
    """The head before training: that of a reward-trained backbone, else random weights."""
    head = nn.Linear(backbone.pooled_width, 1)
    nn.init.normal_(head.weight, std=backbone.pooled_width**-0.5)
    nn.init.zeros_(head.bias)
    head.bias.requires_grad_(False)  # cancels in every difference of rewards: it only centres them
    if backbone.own_head is not None:
        with torch.no_grad():
            head.weight.copy_(backbone.own_head.weight)
            head.bias.copy_(backbone.own_head.bias)
    return head
