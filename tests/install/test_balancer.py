"""The balancer's file, in haproxy itself: a visitor's requests stay where the page's WebSocket is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest

from benchmarks.balancer import Balancer, NoBalancer, balanced


class App(ThreadingHTTPServer):
    """Answers with its name, and says whether it is ready."""

    def __init__(self, name: str) -> None:
        self.name, self.ready = name, True
        super().__init__(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.server.ready or self.path != "/readyz" else 503)
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(*apps: App) -> Iterator[None]:
    for app in apps:
        Thread(target=app.serve_forever, daemon=True).start()
    yield
    for app in apps:
        app.shutdown()
        app.server_close()


class Visitor:
    """A browser: it keeps the cookies that it is given."""

    def __init__(self, balancer: Balancer) -> None:
        self._place, self._cookies = urlsplit(balancer.address), SimpleCookie()

    def get(self, path: str = "/") -> tuple[int, str]:
        connection = HTTPConnection(self._place.hostname, self._place.port, timeout=20)
        try:
            sent = self._cookies.output([], header="", sep=";").strip()
            connection.request("GET", path, headers={"Cookie": sent} if sent else {})
            answer = connection.getresponse()
            for line in answer.headers.get_all("Set-Cookie") or []:
                self._cookies.load(line)
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def wait_for(balancer: Balancer, *apps: str) -> None:
    ends = time.monotonic() + 60
    while balancer.up() != set(apps):
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_visitor_stays_at_one_app_moves_when_it_leaves_and_stays_there_when_it_is_back(tmp_path):
    one, two = App("app1"), App("app2")
    try:
        with running(one, two), balanced(tmp_path, [one.address, two.address], every="50ms") as balancer:
            wait_for(balancer, "app1", "app2")
            visitors = [Visitor(balancer) for _ in range(4)]

            def apps() -> list[str]:
                return [visitor.get()[1] for visitor in visitors]

            homes = apps()
            assert set(homes) == {"app1", "app2"} and all(apps() == homes for _ in range(3))
            assert visitors[0].get("/metrics")[0] == 403
            one.ready = False
            wait_for(balancer, "app2")
            assert set(apps()) == {"app2"}
            one.ready = True
            wait_for(balancer, "app1", "app2")
            assert set(apps()) == {"app2"}
            two.ready = False
            wait_for(balancer, "app1")
            assert set(apps()) == {"app1"}
    except NoBalancer as missing:
        pytest.skip(str(missing))
