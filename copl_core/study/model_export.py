"""The verb that writes the text reward of a user, a group or everybody as a folder for transformers, with a card.

torch is imported when a model is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from copl_core.formats.own import whole_folder
from copl_core.install.weights import resolver
from copl_core.records import CoplError, Kind
from copl_core.study import access, group_names, privacy
from copl_core.study.audience import Audience
from copl_core.study.exports import pseudonym_of
from copl_core.study.model_card import Card, card_text
from copl_core.study.roles import TERMINAL, needs
from copl_core.study.session import Session
from copl_core.study_settings import SMALLEST_GROUP

if TYPE_CHECKING:
    from copl_core.reward.model import RewardModel
    from copl_core.snapshots.snapshot import Snapshot

CHECKED = 50  # texts of the study on which a written model is compared with the studio
_ALLOWED = 1e-3  # largest difference in a reward; a larger one means that the model cannot be written this way
_COMPARED_USERS = 400  # of a group, when its mean reward is compared


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What was written."""

    folder: Path
    whose: str  # a sentence's subject: "Ann", "the group Short (8 people)", "everybody (150 people)"
    snapshot: str
    n_checked: int  # texts on which it was compared with the studio
    difference: (
        float | None
    )  # largest one to the exact reward in float32; None for several people, who have no such one
    served: tuple[float, float]  # (root mean square, largest) of the difference to what the reward page computes
    adapter_rank: int | None  # None: an encoder, which has no adapter folder


@needs(TERMINAL)
def export_model(
    session: Session,
    out: Path,
    *,
    user: str | None = None,
    group: str | None = None,
    pseudonym: bool = False,
    small_group: bool = False,
) -> ExportedModel:
    """Write the text reward of the champion as a folder that ``AutoModelForSequenceClassification`` loads.

    Args:
        out: the folder, which appears when it is complete.
        user: by name, placed by their present labels; its rewards are f(t; w) of this user.
        group: by name or number on the pages; its experts have the mean of its members' gate weights.
            Without user and group, the same of everybody with labels.
        pseudonym: the card calls a person "person-17".
        small_group: also of a group of fewer than ``SMALLEST_GROUP`` people.

    Raises:
        CoplError: there is no reward model, no such user or group, or a group of too few, the folder is in use, or
            stock code of transformers cannot express the backbone.
    """
    snapshot = _fitted(session)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CoplError(f"{out} exists already and is not an empty folder; name a new folder.")
    vectors, whose, kind = _audience(session, snapshot, user, group, pseudonym, small_group)
    model = session.scorer().model(snapshot)
    with whole_folder(out) as aside:
        written = _write(session, snapshot, model, vectors, whose, kind, aside)
    return ExportedModel(out, *written)


def _fitted(session: Session) -> Snapshot:
    snapshot = session.snapshot()
    if snapshot is None or not snapshot.has_reward:
        raise CoplError(
            f"Study {session.record.name!r} has no snapshot with a reward model yet; let its trainer fit one, or, "
            f"while the studio is stopped: python -m copl_core fit --study {quote(session.record.name)}"
        )
    if snapshot.left:
        raise CoplError(
            f"Snapshot {snapshot.version} has learned from a person who has left; export the one that is being "
            "trained without them."
        )
    return snapshot


def _audience(
    session: Session, snapshot: Snapshot, user: str | None, group: str | None, pseudonym: bool, small_group: bool
) -> tuple[np.ndarray, str, str]:
    """(user vectors (N, d) that the gate reads, whose taste it is, "user", "group" or "everybody")."""
    if user is not None:
        found = access.find_user(session, user)
        labels = session.store.labels(session.id, user_id=found.id)
        what = "" if found.kind == Kind.HUMAN else f", a {found.kind.noun}"
        vectors = Audience(snapshot, [(found, labels)], False, with_uncertainty=False).gate_vectors
        name = pseudonym_of(found) if pseudonym else found.name
        return vectors, f"{name}{what} ({len(labels)} labels)", "user"
    if group is not None:
        number = group_names.number_of(session, group)
        name = group_names.names(session, snapshot.version)[number]
        audience = Audience(snapshot, [], [number], with_uncertainty=False)
        if number not in audience.groups:
            raise CoplError(f"The group {name!r} has no people in snapshot {snapshot.version}; choose another group.")
        if audience.sizes[number] < SMALLEST_GROUP and not small_group:
            raise CoplError(
                f"The group {name!r} has fewer than {SMALLEST_GROUP} people ({audience.sizes[number]}), so its model "
                "tells what each of them prefers; choose a larger group, or insist with --small-group (in Python "
                "small_group=True)."
            )
        vectors = audience.gate_vectors[audience.groups[number]]
        return vectors, f"the group {name} ({audience.sizes[number]} people)", "group"
    graph = snapshot.reward_graph
    vectors = graph.user_vectors[graph.n_labels > 0]
    return vectors, f"everybody ({len(vectors)} people)", "everybody"


def _write(
    session: Session,
    snapshot: Snapshot,
    model: RewardModel,
    vectors: np.ndarray,
    whose: str,
    kind: str,
    folder: Path,
) -> tuple[str, str, int, float | None, tuple[float, float], int | None]:
    from copl_core.reward import classifier
    from copl_core.reward.backbone import BUNDLED

    name, texts = model.config.backbone, _some_texts(session, model)
    source = str(resolver(session.settings.weights)(name)) if name in BUNDLED else name
    factors = classifier.expert_factors(model, vectors)
    constant = classifier.write_classifier(model, factors, source, folder)
    rank = None
    if model.backbone.causal:
        rank = classifier.write_adapter(model, factors, source, folder / "adapter")
    stock = classifier.stock_rewards(folder, texts, own_head=model.config.own_head) + constant
    difference = None
    if len(vectors) == 1:
        difference = float(np.abs(stock - classifier.exact_rewards(model, texts, factors)).max()) if texts else 0.0
        if difference > _ALLOWED:
            raise CoplError(
                f"Loaded with stock code, the model differs from the studio by {difference:.2g} in a reward, so "
                "nothing is "
                f"written: transformers computes {name} in another way; choose another backbone."
            )
    served = _served_difference(model, vectors, texts, stock)
    facts: dict[str, Any] = {
        "study": session.record.name, "whose": whose, "kind": kind, "manifest": snapshot.manifest,
        "mix": snapshot.mix, "backbone": name, "causal": model.backbone.causal, "constant": constant,
        "max_tokens": model.config.max_tokens, "rank": rank, "n_checked": len(texts), "difference": difference,
        "served": served, "chat": bool(model.backbone.tokenizer.chat_template), "written": datetime.now(UTC),
        "own_head": model.config.own_head, "audit": privacy.last(session),
        "n_left_out": privacy.n_left_out(session, snapshot.reward_graph),
    }  # fmt: skip
    (folder / "README.md").write_text(card_text(Card(**facts)))
    return whose, snapshot.version, len(texts), difference, served, rank


def _some_texts(session: Session, model: RewardModel) -> list[tuple[str, str]]:
    """``CHECKED`` texts (prompt, response) of the study, evenly spread and cut to what the model reads."""
    texts = list(session.store.training_data(session.id).texts())
    some = [texts[i] for i in np.unique(np.linspace(0, len(texts) - 1, CHECKED).astype(int))] if texts else []
    return model.backbone.truncate(some, model.config.max_tokens) if some else []


def _served_difference(
    model: RewardModel, vectors: np.ndarray, texts: Sequence[tuple[str, str]], stock: np.ndarray
) -> tuple[float, float]:
    """(root mean square, largest) difference to the mean text reward that the reward page computes, centred."""
    if not texts:
        return 0.0, 0.0
    some = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), _COMPARED_USERS)).astype(int)]
    page = model.rewards(texts, some).mean(0) / float(model.calibration)
    gap = (stock - stock.mean()) - (page - page.mean())
    return float(np.sqrt((gap**2).mean())), float(np.abs(gap).max())
