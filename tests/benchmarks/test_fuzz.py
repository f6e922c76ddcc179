"""A small run of ``python -m benchmarks.fuzz``, at the entries that need no process of their own."""

from __future__ import annotations

from threading import Thread

import pytest

from benchmarks import fuzz, fuzz_requests
from copl_core.serving.app import make_app, server_of
from tests.worlds import by_style


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> fuzz.World:
    return fuzz.World(tmp_path_factory.mktemp("fuzz") / "home")


def test_damaged_files_are_imported_or_refused_whole(world):
    tally = fuzz.imports(world, 100, 2, None)
    assert tally.faults == [] and {"refused", "taken"} <= set(tally.answers)


def test_commands_of_any_kind_end_with_a_status_and_change_nothing_where_they_fail(world):
    tally = fuzz.terminals(world, 60, 2)
    assert tally.faults == [] and len(tally.answers) == 3


def test_the_reward_server_answers_requests_of_any_kind(world):
    server = server_of(make_app(world.store, world.settings, embed=by_style), "127.0.0.1", 0)
    running = Thread(target=server.run)
    running.start()
    while not server.started:
        assert running.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    tally = fuzz.http(world, "server", 100, 2, fuzz_requests.SERVER, port)
    server.should_exit = True
    running.join()
    assert tally.faults == [] and tally.answers["4xx"] > 50


def test_a_changed_table_a_text_for_owners_and_a_traceback_are_seen(world):
    tally = fuzz.Tally("entry")
    tally.look(b"... canary-mail-7f3a@example.org", fuzz.hidden_from(world, "nobody"), "request")
    tally.look(b"Traceback (most recent call last):", (), "request")
    assert len(tally.shown) == len(tally.tracebacks) == 1
    before = world.digests()
    world.store.write_guidelines(world.session.id, "Be kind.")
    assert {name for name, one in world.digests().items() if one != before[name]} == {"guideline", "audit"}
