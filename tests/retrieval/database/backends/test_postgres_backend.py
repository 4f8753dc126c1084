"""The served database, on a real PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import psycopg
import pytest
from database_samples import DIM, META, facts, unit_vectors, works

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

WRITER = """
import sys
from database_samples import facts, works
from stylesim.retrieval.database.style_database import StyleDatabase

database = StyleDatabase.open(sys.argv[1])
everything = works(4000)
for first in range(0, 4000, 40):
    database.add(everything.select(range(first, first + 40)), facts(4000), existing="skip")
    print(first + 40, flush=True)
"""


@pytest.mark.slow
def test_descriptors_beyond_2000_dimensions_are_indexed_in_half_precision(postgres: str):
    x = unit_vectors(300, 2560)
    items = item_table((f"w/{i:03d}", [], None, "s", i) for i in range(300))
    with StyleDatabase.create(postgres, META, 2560) as database:
        database.add(DescriptorSet(x, items, META))
        index = database.optimize(exact_below=0)
        assert index is not None
        assert index["kind"] == "HNSW halfvec"
        exact, found = (database.search(x[:20], 5, exact=exact) for exact in (True, False))
        assert found.ids == exact.ids
        # The candidates are compared again with what is stored, which is float32.
        np.testing.assert_array_equal(found.similarities, exact.similarities)
        with psycopg.connect(postgres.partition("#")[0]) as connection:
            schema = postgres.partition("#")[2]
            row = connection.execute(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND indexname = 'items_hnsw'", [schema]
            ).fetchone()
        assert row is not None
        assert "halfvec_ip_ops" in row[0]


def test_dimensions_that_pgvector_cannot_hold_or_index_are_refused(postgres: str):
    with pytest.raises(DataError, match="at most 16,000 dimensions, got 16,001"):
        StyleDatabase.create(postgres, META, 16_001)
    with StyleDatabase.create(postgres, META, 4001) as database:
        database.add(DescriptorSet(unit_vectors(3, 4001), works(3).items, META))
        with pytest.raises(DataError, match="indexes at most 4,000 dimensions, got 4,001"):
            database.optimize(exact_below=0)
        assert database.search(unit_vectors(3, 4001), 1).ids == [["w/0000"], ["w/0001"], ["w/0002"]]


def test_a_rare_filter_still_gives_k_neighbours_through_the_index(postgres: str):
    n = 3000
    with StyleDatabase.create(postgres, META, DIM) as database:
        database.add(works(n), facts(n).assign(room=[i % 100 for i in range(n)]))
        database.optimize(exact_below=0)
        exact, found = (database.search(unit_vectors(5, seed=3), 10, where="room = 7", exact=e) for e in (True, False))
    assert all(len(ids) == 10 for ids in found.ids)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found.ids, exact.ids, strict=True)]) >= 9


@pytest.mark.slow
def test_a_killed_client_loses_nothing_that_was_acknowledged(postgres: str):
    StyleDatabase.create(postgres, META, DIM).close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, postgres], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for _ in range(5):
        acknowledged = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    acknowledged = int(([str(acknowledged), *process.communicate()[0].split()])[-1])
    with StyleDatabase.open(postgres) as database:
        assert database.existing(works(acknowledged).ids) == set(works(acknowledged).ids)
        assert len(database) - acknowledged in (0, 40)


def test_several_clients_write_at_once(postgres: str):
    with StyleDatabase.create(postgres, META, DIM) as one, StyleDatabase.open(postgres) as other:
        assert one.add(works(10)) == 10
        assert other.add(works(20), facts(20), existing="skip") == 10
        assert len(one) == len(other) == 20
        assert one.columns == other.columns  # with what the other has added


def test_a_connection_that_the_server_closes_is_opened_again(postgres: str):
    with StyleDatabase.create(postgres, META, DIM) as database:
        database.add(works(3))
        with psycopg.connect(postgres.partition("#")[0], autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        with pytest.raises(DataError, match="reports an error"):
            database.count()
        assert database.count() == 3


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("postgresql://me:secret@localhost/art", ConfigError, "may not contain a password"),
        ("postgresql://me@localhost/art?pass%77ord=secret", ConfigError, "may not contain a password"),
        ('postgresql://me@localhost/art#x"; DROP SCHEMA public; --', ConfigError, "The schema after # must"),
        ("postgresql://me@localhost/art#pg_catalog", ConfigError, "The schema after # must"),
        ("postgresql://localhost:1/art?connect_timeout=2", DataError, "reports an error: connection failed"),
    ],
)
def test_urls_that_leak_or_lead_nowhere_are_refused(url: str, error: type[Exception], message: str):
    for use in (StyleDatabase.open, lambda url: StyleDatabase.create(url, META, DIM)):
        with pytest.raises(error, match=message) as caught:
            use(url)
        assert "secret" not in str(caught.value)
