"""A trainer in a process of its own, for tests that kill or pause it: arguments are its home and the database.

It executes one graph run, and reads the texts of it once the file ``go`` is in its home.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from copl_core.config import Settings
from copl_core.trainer.job import Job
from copl_core.trainer.worker import Trainer
from db.store import open_store
from tests.trainer.conftest import QUICK_GRAPH
from tests.worlds import by_style


def main(home: Path, url: str) -> None:
    def waits(texts, progress):
        while not (home / "go").exists():
            progress(0, len(texts))
            time.sleep(0.02)
        return by_style(texts, progress)

    Job.graph_config = lambda job, kind: QUICK_GRAPH
    one = Trainer(open_store(url), Settings(home=home, database_url=url, lease_seconds=1.0), embed=waits)
    print(one.worker, flush=True)
    while not one.execute_next("graph"):
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
