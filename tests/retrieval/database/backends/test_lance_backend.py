"""The embedded database in several processes: one writer, many readers, and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from database_samples import DIM, META, facts, unit_vectors, works

from stylesim.core.errors import DataError
from stylesim.retrieval.database.backends.lance_backend import LOCK
from stylesim.retrieval.database.style_database import StyleDatabase

WRITER = """
import sys
from pathlib import Path
from database_samples import facts, works
from stylesim.retrieval.database.style_database import StyleDatabase

folder, start = sys.argv[1], int(sys.argv[2])
everything, metadata = works(4000), facts(4000)
database = StyleDatabase.open(folder)
print("ready", flush=True)
for first in range(start, 4000, 40):
    part = everything.select(range(first, first + 40))
    database.add(part, metadata, existing="skip")
    database.update(metadata[first : first + 1].assign(period="changed"))
    if first % 400 == 0:
        database.optimize()
    print(first + 40, flush=True)
"""


def start_writer(folder: str, start: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", WRITER, folder, str(start)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_was_acknowledged(folder: str):
    StyleDatabase.create(folder, META, DIM).close()
    acknowledged = 0
    for seed in range(3):
        writer = start_writer(folder, acknowledged)
        time.sleep(random.Random(seed).uniform(0.05, 0.6))
        writer.send_signal(signal.SIGKILL)
        lines = writer.communicate()[0].split()
        assert writer.returncode == -signal.SIGKILL
        acknowledged = int(lines[-1]) if lines else acknowledged
        with StyleDatabase.open(folder) as database:  # the lock ended with the process
            ids = works(4000).ids[:acknowledged]
            assert database.existing(ids) == set(ids)
            assert len(database) - acknowledged in (0, 40)  # written, but not yet acknowledged
            changed = database.count("period = 'changed'")
            assert changed - acknowledged // 40 in (0, 1)
            if acknowledged:
                query = works(4000).select([acknowledged - 1])
                assert database.search(query, 1).ids == [query.ids]
                assert database.items(query.ids)["year"].tolist() == [facts(4000)["year"][acknowledged - 1]]
            assert database.add(works(1), existing="replace") == 1  # it can be written
            database.update(facts(1).assign(period="changed"))
    assert acknowledged > 0


@pytest.mark.slow
def test_one_process_writes_while_others_read(folder: str):
    StyleDatabase.create(folder, META, DIM).close()
    writer = start_writer(folder, 0)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()  # the first piece has been written, so the lock is held
        with StyleDatabase.open(folder) as reader:
            sizes = []
            for _ in range(5):
                found = reader.search(unit_vectors(2), 3)
                assert all(len(ids) == 3 for ids in found.ids)
                sizes.append(len(reader))
                writer.stdout.readline()
            assert sizes == sorted(sizes)
            assert sizes[-1] > sizes[0]  # a reader sees what is written after it was opened
            for write in (
                lambda: reader.add(works(1), existing="replace"),
                lambda: reader.delete(["w/0000"]),
                lambda: reader.update(facts(1)),
                reader.optimize,
            ):
                with pytest.raises(DataError, match=r"Another process is writing to .* reading is possible"):
                    write()
            writer.kill()
            writer.wait()
            assert reader.add(works(1), existing="replace") == 1
    finally:
        writer.kill()
        writer.communicate()


def test_the_lock_is_taken_by_the_first_write_and_released_on_close(folder: str):
    StyleDatabase.create(folder, META, DIM).close()
    first, second = StyleDatabase.open(folder), StyleDatabase.open(folder)
    assert second.add(works(1)) == 1  # opening alone does not lock
    with pytest.raises(DataError, match="Another process"):
        first.add(works(2), existing="skip")
    second.close()
    assert first.add(works(2), existing="skip") == 1
    first.close()


def test_a_folder_without_write_permission_can_be_searched(folder: str):
    with StyleDatabase.create(folder, META, DIM) as database:
        database.add(works(5))
    (Path(folder) / LOCK).unlink(missing_ok=True)
    os.chmod(folder, 0o500)
    try:
        with StyleDatabase.open(folder) as database:
            assert database.search(works(5), 1).ids[4] == ["w/0004"]
        assert not (Path(folder) / LOCK).exists()
    finally:
        os.chmod(folder, 0o700)


def test_a_damaged_or_newer_database_is_refused_in_a_sentence(folder: str):
    with StyleDatabase.create(folder, META, DIM) as database:
        database.add(works(5))
    about = Path(folder) / "database.json"
    content = json.loads(about.read_text())
    about.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DataError, match="has the format 99, but this version of stylesim reads format 1"):
        StyleDatabase.open(folder)
    about.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        StyleDatabase.open(folder)
    about.write_text(json.dumps(content))
    for file in (Path(folder) / "items.lance" / "_versions").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        StyleDatabase.open(folder)


def test_many_small_additions_are_compacted(folder: str):
    with StyleDatabase.create(folder, META, DIM) as database:
        for i in range(20):
            database.add(works(20).select([i]))
        data = Path(folder) / "items.lance" / "data"
        assert len(list(data.iterdir())) == 20
        database.optimize(keep=timedelta(0))
        assert len(list(data.iterdir())) == 1
        assert database.existing(works(20).ids) == set(works(20).ids)
