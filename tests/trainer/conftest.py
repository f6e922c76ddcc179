"""Quick graphs: these tests are about runs and what they publish, not about how well a graph predicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from copl_core.preference.config import GraphConfig
from copl_core.study.session import Session
from copl_core.trainer.job import Job
from tests import worlds
from tests.preference.camps import QUICK

QUICK_GRAPH = QUICK.with_settings(members=1)


@pytest.fixture(scope="module", autouse=True)
def quick_graphs() -> Iterator[None]:
    """Graph jobs fit one small network with few steps; full jobs choose their configuration as usual."""
    choose = Job.graph_config

    def quick(job: Job, kind: str) -> GraphConfig:
        return QUICK_GRAPH if kind == "graph" else choose(job, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "graph_config", quick)
        yield


# Names of their own, so that no other test gets a study with a quick graph from ``worlds.trained``.


def quick_three_people(home: Path, **settings) -> Session:
    return worlds.three_people(home, **settings)


def quick_two_camps(home: Path, **settings) -> Session:
    return worlds.two_camps(home, **settings)
