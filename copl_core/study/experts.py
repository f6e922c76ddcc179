"""The verbs of the Experts page: who is served by which expert, how evenly, and what each expert does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS, measure_many
from copl_core.formats.table import csv_text
from copl_core.ids import rows_of
from copl_core.insight import gating
from copl_core.insight.gating import Load
from copl_core.records import CoplError, Response, User
from copl_core.snapshots.snapshot import load_snapshot, on_disk
from copl_core.study import access, contents, found_features, runs
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

if TYPE_CHECKING:
    from copl_core.snapshots.snapshot import Snapshot

_TEXTS, _OF_A_PROMPT = 80, 4  # texts in the sample, and of one prompt among them
_SHOWN, _FEATURES, _BETWEEN = 3, 4, 12  # texts per direction, features and users that a view holds
MOST_GATED = 20_000  # users whose gate weights are computed for the page
MOST_ROWS = 1500  # of people in the figure of gates; more rows are thinner than a pixel


@dataclass(frozen=True, slots=True)
class ExpertsView:
    """Gate weights of users, ordered by group and within a group by expert."""

    n_users: int  # whom the gate serves: those of the rows, or a sample of them are the rows
    user_ids: np.ndarray  # (N,)
    users: dict[int, User]  # by id: those of the rows that are shown, and those between two experts
    shown: np.ndarray  # (n,) rows, evenly spread: all of them, or ``MOST_ROWS``
    groups: np.ndarray  # (N,) −1: no group
    n_labels: np.ndarray  # (N,) in the graph that the gate reads
    gates: np.ndarray  # (N, M), of one gate, or the mean over gates
    blocks: tuple[tuple[int, int, int], ...]  # (group or −1, first row, row after the last)
    load: Load
    gate: int | None  # None: the mean
    gate_names: tuple[str, ...]  # of all gates
    between: tuple[tuple[int, int, int, float], ...]  # (row, first expert, second, gap), the smallest gap first
    snapshot: str
    fitted_in: str  # the snapshot whose run fitted the reward model
    say: tuple[bool, bool]  # whether the experts' rewards have weight about labelled texts, and new ones
    serving: str  # which experts serve a person, in words
    sees_prompt: bool  # whether the gate sees the prompt: ``gates`` is then the mean over some training prompts


@dataclass(frozen=True, slots=True)
class FitLoad:
    """How one fit of the reward model spread its training users over the experts."""

    snapshot: str  # the one whose run fitted it
    share: np.ndarray  # (M,) mean over gates, sums to 1
    entropy: float  # bits
    dead: int  # experts that serve nobody
    balance: float  # weight of the balance loss
    accuracy: float | None  # of the whole product on held-out labels
    n: int  # held-out labels

    @property
    def effective(self) -> float:
        """Number of equally busy experts with the same entropy: 2 to the entropy."""
        return float(2**self.entropy)

    @property
    def factor(self) -> float:
        """The largest share over the smallest; infinite where an expert is dead."""
        return float(self.share.max() / self.share.min()) if self.share.min() > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class FeatureCorrelation:
    """A measured feature that correlates with what an expert adds."""

    feature: str
    words: str  # what the expert raises
    r: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FoundCorrelation:
    """A feature found in the texts that goes with what an expert changes, more than every counted one does."""

    feature: int
    r: float  # positive: the expert raises responses like ``more``
    low: float
    high: float
    more: tuple[str, ...] = ()  # excerpts of responses that the expert raises, and of those that it lowers
    less: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextEffect:
    """A text, its prompt, and what the expert adds to its reward relative to the other texts of that prompt."""

    prompt: str
    response: Response
    change: float  # log-odds


@dataclass(frozen=True, slots=True)
class ExpertEffect:
    """What one expert does to the texts of the sample."""

    expert: int
    size: float  # root mean square of its changes, log-odds
    raises: tuple[TextEffect, ...]
    lowers: tuple[TextEffect, ...]
    correlations: tuple[FeatureCorrelation, ...]  # empty: no feature is certain
    found: FoundCorrelation | None = None  # None: no found feature is certain and says more than the counted ones


@dataclass(frozen=True, slots=True)
class ExpertEffectsView:
    """What all experts of a gate do, on one sample of texts."""

    effects: tuple[ExpertEffect, ...]
    table: tuple[dict, ...]  # every change, one row per text and expert
    n_texts: int
    n_prompts: int
    snapshot: str
    fitted_in: str


@needs(RESEARCHER)
def overview(session: Session, gate: int | None = None, *, most: int = MOST_GATED) -> ExpertsView | None:
    """Gate weights of every user the reward model knows, or of an even sample; None before the first reward model.

    Args:
        most: users of the view.

    Raises:
        CoplError: the snapshot is damaged, or has no such gate.
    """
    snapshot = session.snapshot()
    if snapshot is None or not snapshot.has_reward:
        return None
    state, layout = snapshot.reward_graph, snapshot.layout
    rows = np.flatnonzero((state.n_labels > 0) & ~np.isin(state.user_ids, access.hidden_users(session)))
    n_users = len(rows)
    rows = rows[np.linspace(0, n_users - 1, min(n_users, most)).astype(int)]
    weights = snapshot.gate(state.user_vectors[rows])  # (N, G, M)
    if not weights.shape[2]:
        raise CoplError(
            f"The reward model of {_fitted_in(snapshot)} has one reward for everybody and no experts; fit "
            "one with experts on the training page."
        )
    if gate is not None and not 0 <= gate < weights.shape[1]:
        raise CoplError(f"There is no gate {gate}: there are {weights.shape[1]}, numbered from 0; choose one of them.")
    gates = weights.mean(1) if gate is None else weights[:, gate]
    ids = state.user_ids[rows]
    on_map = rows_of(ids, layout.user_ids)
    group = np.where(on_map >= 0, layout.group[on_map], -1)
    order, blocks = gating.by_group(gates, group)
    between = gating.between_two(gates[order], _BETWEEN)
    shown = np.linspace(0, len(order) - 1, min(len(order), MOST_ROWS)).astype(int)
    named = ids[order[np.unique([*shown, *(row for row, *_ in between)]).astype(int)]]
    return ExpertsView(
        n_users,
        ids[order],
        access.users_of(session, named.tolist()),
        shown,
        group[order],
        state.n_labels[rows[order]],
        gates[order],
        blocks,
        gating.load(gates),
        gate,
        _gate_names(weights.shape[1]),
        tuple(between),
        snapshot.version,
        _fitted_in(snapshot),
        (snapshot.mix.text > 0, snapshot.mix.text_new > 0),
        gating.SERVING[snapshot.gate.routing],
        snapshot.gate.sees_prompt,
    )


@needs(RESEARCHER)
def loads(session: Session) -> tuple[tuple[FitLoad, ...], tuple[str, ...]]:
    """(the load of every fit of the reward model, oldest first; versions of snapshots that are unreadable)."""
    found, unreadable, here, records = {}, [], on_disk(session.snapshot_root), session.store.snapshots(session.id)
    present = runs.on_disk(session)
    stored = session.fetching.manifests(present - here)
    for record in reversed(records):
        if record.version not in present:
            continue  # removed with age
        try:
            away = stored.get(record.version)
            fit = (away or load_snapshot(session.snapshot_root, record.version).manifest).get("reward")
        except CoplError:
            unreadable.append(record.version)
            continue
        if fit and fit.get("fit", {}).get("load"):
            found[fit["fitted_in"]] = _fit_load(fit)
    return tuple(found.values()), tuple(unreadable)


def with_and_without(fits: tuple[FitLoad, ...]) -> tuple[FitLoad, FitLoad] | None:
    """The newest fit with the balance loss and the newest without it; None unless both exist."""
    newest = {fit.balance > 0: fit for fit in fits}
    return (newest[True], newest[False]) if len(newest) == 2 else None


@needs(RESEARCHER)
def effects(session: Session, gate: int = 0) -> ExpertEffectsView | None:
    """What each expert does on a sample of the study's texts, computed once per fit; None before the first fit.

    Raises:
        CoplError: no prompt of the study has two responses, or there is no such gate.
    """
    snapshot = session.snapshot()
    if snapshot is None or not snapshot.has_reward:
        return None
    stored = snapshot.layout.found
    directions = b"" if stored is None else stored.dictionary.directions.tobytes()
    key = (_fitted_in(snapshot), snapshot.folder.parent.name, directions)
    name = f"expert effects of gate {gate}"
    found, table, n_texts, n_prompts = session.once(name, key, lambda: _effects(session, snapshot, gate))
    shown = found
    if any(effect.found is not None for effect in found):  # excerpts are read each time: somebody may have joined
        shown = tuple(_with_excerpts(session, snapshot, effect) for effect in found)
    return ExpertEffectsView(shown, table, n_texts, n_prompts, snapshot.version, _fitted_in(snapshot))


# ---- files


@needs(RESEARCHER)
def gates_csv(session: Session, view: ExpertsView) -> str:
    """Gate weights as CSV, one row per user: of all of them, where the view has a sample."""
    if view.n_users > len(view.user_ids):
        view = overview(session, view.gate, most=view.n_users) or view
    users = access.users_of(session, view.user_ids.tolist())
    columns = [f"expert_{i + 1}" for i in range(view.gates.shape[1])]
    rows = [
        {
            "user": user,
            "name": users[user].name,
            "kind": str(users[user].kind),
            "group": "" if group < 0 else group + 1,
            "labels": labels,
            **dict(zip(columns, (round(w, 5) for w in weights), strict=True)),
            "snapshot": view.snapshot,
            "fitted_in": view.fitted_in,
        }
        for user, group, labels, weights in zip(
            view.user_ids.tolist(), view.groups.tolist(), view.n_labels.tolist(), view.gates.tolist(), strict=True
        )
        if user in users
    ]
    return csv_text(rows, ["user", "name", "kind", "group", "labels", *columns, "snapshot", "fitted_in"])


def effects_csv(view: ExpertEffectsView) -> str:
    """Every change as CSV, one row per text and expert."""
    source = {"snapshot": view.snapshot, "fitted_in": view.fitted_in}
    return csv_text((row | source for row in view.table), ["expert", "prompt", "response", "text", "change", *source])


def loads_csv(fits: Sequence[FitLoad]) -> str:
    """Loads as CSV, one row per fit."""
    shares = [f"share_{i + 1}" for i in range(max(len(fit.share) for fit in fits))]
    rows = [
        {
            "fitted_in": fit.snapshot,
            "balance": fit.balance,
            "entropy_bits": round(fit.entropy, 4),
            "dead": fit.dead,
            "accuracy": fit.accuracy,
            "n": fit.n,
            **dict(zip(shares, fit.share.round(5).tolist(), strict=False)),
        }
        for fit in fits
    ]
    return csv_text(rows, ["fitted_in", "balance", "entropy_bits", "dead", "accuracy", "n", *shares])


# ---- helpers


def _fitted_in(snapshot: Snapshot) -> str:
    return snapshot.manifest["reward"]["fitted_in"]


def _gate_names(n_gates: int) -> tuple[str, ...]:
    if n_gates == 1:
        return ("the gate of all layers",)
    return tuple(f"layer {n_gates - index} from the top" for index in range(n_gates))


def _fit_load(reward: dict) -> FitLoad:
    """The load of a fit, from the entry "reward" of a snapshot's manifest."""
    share = np.array(reward["fit"]["load"], float)
    share = share / max(share.sum(), 1e-12)
    positive = share[share > 0]
    product = reward.get("metrics", {}).get("copl", {})
    return FitLoad(
        reward["fitted_in"],
        share,
        float(-(positive * np.log2(positive)).sum()) + 0.0,
        int((share == 0).sum()),
        float(reward.get("config", {}).get("balance", 0.0)),
        product.get("accuracy"),
        int(product.get("n", 0)),
    )


def _effects(
    session: Session, snapshot: Snapshot, gate: int
) -> tuple[tuple[ExpertEffect, ...], tuple[dict, ...], int, int]:
    texts = _sample(session)
    if not texts:
        raise CoplError("No prompt of the study has two answers, so experts cannot be compared on any; import pairs.")
    prompts = np.array([response.prompt_id for _, response in texts], np.int64)
    pairs = [(prompt, response.text) for prompt, response in texts]
    change = gating.centred(session.scorer().expert_effects(snapshot, pairs, gate), prompts)  # (M, T)
    features = measure_many([response.text for _, response in texts])
    explanation = gating.explain(change, features, prompts, np.random.default_rng(0))
    by_found = _found_explanation(session, snapshot, pairs, change, prompts)
    found = tuple(_effect(expert, change[expert], texts, explanation, by_found) for expert in range(len(change)))
    table = tuple(
        {
            "expert": expert + 1,
            "prompt": prompt,
            "response": response.id,
            "text": response.text,
            "change": round(float(change[expert, t]), 5),
        }
        for expert in range(len(change))
        for t, (prompt, response) in enumerate(texts)
    )
    return found, table, explanation.n_texts, explanation.n_prompts


def _sample(session: Session) -> list[tuple[str, Response]]:
    """Up to 80 (prompt, response): prompts spread evenly over the study, each with two to four responses."""
    prompts = contents.prompts(session)
    most = _TEXTS // _OF_A_PROMPT
    spread = np.linspace(0, len(prompts) - 1, min(len(prompts), most)).astype(int).tolist() if prompts else []
    found = []
    for number, prompt in (prompts[i] for i in spread):
        responses = contents.prompt_responses(session, number)[:_OF_A_PROMPT]
        if len(responses) > 1:
            found += [(prompt, response) for response in responses]
    return found


def _effect(
    expert: int,
    change: np.ndarray,
    texts: list[tuple[str, Response]],
    explanation: gating.Explanation,
    by_found: gating.Explanation | None,
) -> ExpertEffect:
    order = np.argsort(-change, kind="stable").tolist()
    sorted_texts = [TextEffect(texts[t][0], texts[t][1], float(change[t])) for t in order]
    features = explanation.certain(expert)[:_FEATURES]
    return ExpertEffect(
        expert,
        float(np.sqrt((change**2).mean())),
        tuple(one for one in sorted_texts[:_SHOWN] if one.change > 0),
        tuple(one for one in sorted_texts[: -_SHOWN - 1 : -1] if one.change < 0),
        tuple(_correlation(expert, feature, explanation) for feature in features),
        _strongest_found(expert, explanation, by_found),
    )


def _found_explanation(
    session: Session, snapshot: Snapshot, pairs: list[tuple[str, str]], change: np.ndarray, prompts: np.ndarray
) -> gating.Explanation | None:
    """Which found features go with what experts change; None where the snapshot holds none that predict more."""
    stored = snapshot.layout.found
    if stored is None or not stored.gain.certain:
        return None
    phi = session.scorer().embed(pairs, snapshot.graph.features_version)
    width = stored.dictionary.directions.shape[1]
    if phi.shape[1] - len(FEATURE_NAMES) != width:
        return None
    apart = gating.centred(phi[:, :width].T.astype(float), prompts).T  # (T, P), from the mean of the prompt
    return gating.explain(change, stored.dictionary.codes(apart), prompts, np.random.default_rng(0))


def _strongest_found(
    expert: int, counted: gating.Explanation, by_found: gating.Explanation | None
) -> FoundCorrelation | None:
    best = max((abs(float(counted.r[expert, feature])) for feature in counted.certain(expert)), default=0.0)
    feature = None if by_found is None else next(iter(by_found.certain(expert)), None)
    if by_found is None or feature is None or abs(by_found.r[expert, feature]) <= best:
        return None
    r, low, high = (float(part[expert, feature]) for part in (by_found.r, by_found.low, by_found.high))
    return FoundCorrelation(feature, r, low, high)


def _with_excerpts(session: Session, snapshot: Snapshot, effect: ExpertEffect) -> ExpertEffect:
    """The effect with what may be quoted at present of its found feature, and without it where nothing may."""
    if effect.found is None or snapshot.layout.found is None:
        return effect
    more, less = found_features.shown_by(session, snapshot.layout.found, effect.found.feature)
    if not more:
        return replace(effect, found=None)
    more, less = (more, less) if effect.found.r > 0 else (less, more)
    return replace(effect, found=replace(effect.found, more=more, less=less))


def _correlation(expert: int, feature: int, explanation: gating.Explanation) -> FeatureCorrelation:
    r = float(explanation.r[expert, feature])
    name = FEATURE_NAMES[feature]
    return FeatureCorrelation(
        name,
        FEATURE_WORDS[name][0 if r > 0 else 1],
        r,
        float(explanation.low[expert, feature]),
        float(explanation.high[expert, feature]),
    )
