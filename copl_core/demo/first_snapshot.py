"""The first snapshot of the demo study, shipped with the product: a first start has a map and experts at once.

``make demo`` makes the files in ``first/`` with the ordinary trainer: a snapshot, and φ of the demo's texts.  A study
receives them only if its labels and texts are those that the snapshot was fitted to; otherwise its trainer makes the
first snapshot, as in every other study.  Ids differ between databases, so they are replaced by those of the study.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from copl_core.config import Settings
from copl_core.install.weights import folder
from copl_core.records import CoplError, TrainingData
from copl_core.snapshots.copies import copy_snapshot
from copl_core.snapshots.fetching import Fetching
from copl_core.snapshots.fingerprint import data_fingerprint
from copl_core.snapshots.snapshot import Snapshot, newest_number, record_of
from copl_core.store import Store
from copl_core.training.text_embedder import TextEmbedder, inputs

FOLDER = Path(__file__).parent / "first"
_MANIFEST, _PHI = "manifest.json", "phi.safetensors"
ENCODER = "minilm"


def install(store: Store, settings: Settings, study_id: int) -> bool:
    """Give a new demo study its first snapshot and the encodings of its texts; False if they belong to other data.

    Raises:
        StorageError: the snapshot cannot be put where all machines read it.
    """
    shipped, data = Snapshot(FOLDER, json.loads((FOLDER / _MANIFEST).read_text())), store.training_data(study_id)
    if shipped.manifest["content"] != content_key(data):
        return False
    _install_phi(settings, data)
    root = settings.snapshots / str(study_id)
    root.mkdir(parents=True, exist_ok=True)
    version = store.next_version(study_id, after=newest_number(root))
    manifest = _manifest(shipped, data, study_id, version)
    written = copy_snapshot(
        shipped, root, version, manifest, users=lambda _: data.user_ids, responses=lambda _: data.response_ids
    )
    if stored := Fetching.of(store, settings, study_id).stored:
        stored.put(written)
    store.publish(study_id, record_of(written), run_id=None)
    return True


def content_key(data: TrainingData) -> str:
    """A digest of labels and texts that does not depend on the ids of a database."""
    rows = replace(data, user_ids=np.arange(data.n_users), response_ids=np.arange(data.n_responses))
    return data_fingerprint(rows)["sha256"]


def pack(snapshot: Snapshot, data: TrainingData, embedder: TextEmbedder, target: Path = FOLDER) -> None:
    """Write a snapshot of the demo and φ of its texts to the folder that is shipped."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(snapshot.folder, target)
    (target / _MANIFEST).write_text(json.dumps(snapshot.manifest | {"content": content_key(data)}, indent=1))
    texts = list(dict.fromkeys(text for pair in data.texts() for text in inputs(*pair)))
    vectors = embedder.vectors(texts)
    save_file({"vectors": vectors}, target / _PHI, {"encoder": embedder.mark})


def _manifest(shipped: Snapshot, data: TrainingData, study_id: int, version: str) -> dict:
    """The manifest of the shipped snapshot as one of this study; no run of this study made it."""
    cut = data_fingerprint(data)
    reward = shipped.manifest["reward"] | {"watermark": data.watermark, "fitted_in": version}
    own = {"study": study_id, "run": None, "watermark": data.watermark, "data": cut, "reward": reward}
    return {name: value for name, value in shipped.manifest.items() if name != "content"} | own


def _install_phi(settings: Settings, data: TrainingData) -> None:
    """Keep the shipped encodings in the cache of this installation, if its encoder is the one that made them."""
    try:
        embedder = TextEmbedder(folder(ENCODER, settings.weights), cache=settings.cache / "phi")
    except CoplError:
        return  # the weights are not here yet: the texts are encoded when they are
    if _encoder_of(FOLDER / _PHI) == embedder.mark:
        texts = list(dict.fromkeys(text for pair in data.texts() for text in inputs(*pair)))
        embedder.remember(texts, load_file(FOLDER / _PHI)["vectors"])


def _encoder_of(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(file, "numpy") as saved:
        return (saved.metadata() or {}).get("encoder", "")
