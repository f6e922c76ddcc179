"""Two lanes of a trainer may need transformers at the same moment."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading, time
from copl_core.training.importing import import_transformers

found, failed = [], []

def lane():
    try:
        found.append(import_transformers().AutoModel)
    except Exception as problem:
        failed.append(problem)

lanes = [threading.Thread(target=lane) for _ in range(4)]
for one in lanes:
    one.start()
    time.sleep(0.05)  # each begins while the first still imports
for one in lanes:
    one.join()
assert len(found) == 4 and not failed, failed
"""


def test_threads_that_import_transformers_together_all_get_it_whole():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
