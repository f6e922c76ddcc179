"""Makes the files of ``demo.first_snapshot`` again: ``make demo``, after texts, features or models changed.

It fits the demo in an empty home with the ordinary trainer (some minutes) and replaces the folder ``first``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.demo import first_snapshot
from copl_core.demo.world import demo_rows
from copl_core.install.weights import folder
from copl_core.records import CoplError, RunState
from copl_core.snapshots.snapshot import load_snapshot
from copl_core.trainer.worker import Trainer
from copl_core.training.text_embedder import TextEmbedder


def main() -> None:
    weights = Settings.from_environment().weights
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "weights").symlink_to(weights.resolve(), target_is_directory=True)
        settings = Settings(home=Path(home))
        store = open_store(settings)
        study = store.create_study("Demo", demo=True)
        store.import_rows(study.id, demo_rows(seed=0))
        trainer = Trainer(store, settings)
        run = store.add_run(study.id, "full", "shipped with the product")
        trainer.execute(run.id)
        run = store.run(run.id)
        if run.state != RunState.DONE or run.snapshot is None:
            raise CoplError(f"The fit of the demo {run.state}: {run.message}")
        embedder = TextEmbedder(folder(first_snapshot.ENCODER, settings.weights))
        snapshot = load_snapshot(trainer.root(study.id), run.snapshot)
        first_snapshot.pack(snapshot, store.training_data(study.id), embedder)


if __name__ == "__main__":
    main()
