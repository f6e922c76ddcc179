"""A process that labels as fast as it can and prints which labels were acknowledged: started by ``test_races.py``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from copl_core.records import Choice
from db.store import open_store


def main(url: str, user_id: int, repeats: bool) -> None:
    store = open_store(url)
    every = store.pairs(store.current_study().id)
    while repeats or store.progress(user_id).left:
        pairs = every if repeats else store.available_pairs(user_id).pairs or every
        task = store.open_task(user_id) or store.hand_out(
            user_id,
            pairs[0][0],
            swap=False,
            reason="repeat" if repeats else "uniform",
            expires_at=datetime.now(UTC) + timedelta(minutes=5),
        )
        label = task and store.submit(task.id, user_id, Choice.LEFT)
        if label is not None:
            print(label.id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "repeats")
