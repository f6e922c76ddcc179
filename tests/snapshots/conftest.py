"""Storages of every kind that a machine without a network can have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storages import Connection, s3


@pytest.fixture
def bucket(monkeypatch) -> Iterator[tuple[str, Connection]]:
    with s3(monkeypatch) as found:
        yield found


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def address(request, tmp_path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("bucket")[0]
    return {
        "folder": str(tmp_path / "storage"),
        "file": f"file://{tmp_path / 'storage'}",
        "memory": f"memory://{tmp_path.name}",
    }[request.param]


@pytest.fixture
def impatient(monkeypatch) -> None:
    """s3fs itself tries once, so that a test of a fault does not wait for its pauses."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
