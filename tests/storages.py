"""A private S3 server for the tests, and a connection to it that fails on purpose.

The server is moto's: real HTTP, real s3fs on the other side.  Between the two stands a TCP proxy, which can cut a
connection in the middle, hold every byte back, or answer that the disk is full.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import pytest

_WHY = b"<Error><Code>InsufficientStorage</Code><Message>The disk of the server is full</Message></Error>"
FULL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_WHY), _WHY)
BUCKET = "copl-tests"


class Connection:
    """A proxy before a server; each of its faults holds until it is changed."""

    def __init__(self, port: int) -> None:
        self.server, self.cut_after, self.full, self.down = port, 0, False, False
        self.open = Event()  # while it is not set, every answer waits
        self.open.set()
        self.requests: list[bytes] = []  # the beginning of everything that clients sent
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.open.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.server)) as server:
            if self.down:
                return
            Thread(target=self._requests, args=(client, server), daemon=True).start()
            sent = 0
            while answer := server.recv(65536):
                self.open.wait()
                if self.cut_after and sent + len(answer) > self.cut_after:
                    client.sendall(answer[: self.cut_after - sent])
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(answer)
                sent += len(answer)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while request := client.recv(65536):
                self.requests.append(request[:300])
                if self.down:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if self.full and request.startswith(b"PUT"):
                    client.sendall(FULL)
                    while client.recv(65536):
                        pass
                    return
                server.sendall(request)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)


@contextmanager
def s3(patch: pytest.MonkeyPatch) -> Iterator[tuple[str, Connection]]:
    """(the address of an empty bucket, the connection that leads to it)."""
    from botocore.session import get_session
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    connection = Connection(server.get_host_and_port()[1])
    environment = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",  # of a request, before ours
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{connection.port}",
    }
    for name, value in environment.items():
        patch.setenv(name, value)
    moto_api_backend.reset()
    S3FileSystem.clear_instance_cache()  # of the server of another test
    get_session().create_client("s3").create_bucket(Bucket=BUCKET)
    try:
        yield f"s3://{BUCKET}/studio", connection
    finally:
        connection.close()
        server.stop()
