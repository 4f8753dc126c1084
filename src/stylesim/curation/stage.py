"""One stage of the curation: a folder of parquet parts, made piece by piece, that can be stopped and gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import StylesimError
from stylesim.core.files import atomic_path, write_json
from stylesim.core.progress import progress
from stylesim.curation.tar_members import Tar, read_at

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # one of a kind: the key of img2dataset, an md5, or a relative path
        ("image", pa.string()),  # a path, or in a tar (see `open_image_at`); null while only the URL is known
        ("url", pa.string()),
        ("caption", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("aesthetic", pa.float32()),
        ("nsfw", pa.string()),
        ("md5", pa.string()),
        ("content", pa.string()),
        ("tags", pa.list_(pa.string())),  # "artist:vincent van gogh"; null until somebody has looked
    ]
)
"""The columns of a part; what is not known is null."""

SUMMARY = "summary.json"
PLAN = "plan.json"
"""What the parts of an unfinished stage are made of; gone when it is done."""


class Piece(NamedTuple):
    """What one piece of a stage's input has become."""

    kept: pa.Table
    """Rows with columns of SCHEMA, in the order of the input; a column that is missing is null."""
    counts: Mapping[str, int]
    dropped: pa.Table | None = None
    """`id` and `reason` of the rows that go no further."""


@dataclass(frozen=True)
class Stage:
    """One folder of the work folder.

    A stage function begins, maps (or writes its parts with `write`) and finishes:

        def shout(stage: Stage, *, loudness: int = 1) -> dict[str, Any]:
            if (done := stage.begin()) is not None:
                return done
            return stage.finish(stage.map(partial(_shout, loudness=loudness)))
    """

    folder: Path
    settings: Mapping[str, Any]
    """What decides about the result, as plain values."""
    source: Path | None = None
    """The folder of the stage before; None for the first."""
    processes: int | None = None
    """Pieces at once; None: one per core."""
    redo: bool = False
    """Throw away what other settings, or another input, have left here."""
    show: bool = True
    schema: pa.Schema = SCHEMA
    """The columns of its parts; other than SCHEMA for what only the stage itself reads."""

    def begin(self, **inputs: str) -> dict[str, Any] | None:
        """Enter the folder: the counts of the stage where it is done already, otherwise None.

        `inputs` are digests of what else is read: lists, source files, evaluation sets.

        Raises:
            StylesimError: If the stage before is not done, or the folder holds what other settings or another input
                have made, and not `redo`.
        """
        before = {"before": digest(self.source)} if self.source else {}
        plan = json.loads(json.dumps({"settings": dict(self.settings), "inputs": before | inputs}))
        found = next((p for p in (self.folder / SUMMARY, self.folder / PLAN) if p.is_file()), None)
        begun = json.loads(found.read_text()) if found else plan
        # A setting that the folder has never heard of, and that is null, is as it was.
        changed = sorted(
            key for part in plan for key in plan[part] | begun[part] if plan[part].get(key) != begun[part].get(key)
        )
        if changed and os.listdir(self.folder) != [PLAN]:  # of a plan that came to nothing, nothing is lost
            if not self.redo:
                raise StylesimError(
                    f"{self.folder} was made with other settings or from another input ({', '.join(changed)} differ):"
                    " add redo=true to make it anew, or give another out=..."
                )
            trash = self.folder.with_name(".redone")  # half deleted under its own name, it might look done
            shutil.rmtree(trash, ignore_errors=True)
            self.folder.rename(trash)
            shutil.rmtree(trash)
        elif found and found.name == SUMMARY and not changed:
            return begun["counts"]
        elif not found and self.folder.is_dir() and any(self.folder.iterdir()):
            raise StylesimError(f"{self.folder} holds something that no stage has left: give another out=...")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / PLAN, plan)
        return None

    def pieces(self) -> list[Path]:
        """The parts of the stage before, in order."""
        assert self.source is not None, "the first stage has none before it"
        return parts(self.source)

    def map(self, work: Callable[[pa.Table], Piece]) -> Counter[str]:
        """`work` on each part of the stage before, which becomes the part of the same number here; counts added up.

        `work` is called in other processes: a function of a module, or a `partial` of one. Pieces that an earlier,
        interrupted run has finished are not done again, and are counted.
        """
        return self.each(partial(_on_table, work), self.pieces())

    def each(self, work: Callable[[Any], Piece], pieces: Sequence[Any]) -> Counter[str]:
        """The same for pieces of any kind that can be pickled."""
        todo = {n: piece for n, piece in enumerate(pieces) if not self.part(n).exists()}
        job = partial(_write_piece, self, work)
        with progress(self.folder.name, len(pieces), unit="pieces", show=self.show) as advance:
            advance(len(pieces) - len(todo))
            for _ in _all(job, todo, self.processes):
                advance(1)
        return sum((counts_of(self.part(n)) for n in range(len(pieces))), Counter())

    def part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def write(self, number: int, piece: Piece) -> None:
        """Write part `number` and what it has dropped, whole or not at all; its counts go into its metadata."""
        kept = conform(piece.kept, self.schema).replace_schema_metadata(
            {"counts": json.dumps(dict(sorted(piece.counts.items())))}
        )
        if piece.dropped is not None:
            _write_parquet(piece.dropped.select(["id", "reason"]), self.folder / f"dropped-{number:05d}.parquet")
        _write_parquet(kept, self.part(number))

    def finish(self, counts: Mapping[str, Any], **notes: Any) -> dict[str, Any]:
        """Write `summary.json`: plan, counts, `notes` and a digest of the parts. Returns the counts.

        Plots and samples are written before: where a summary is, the stage is done.
        """
        plan = json.loads((self.folder / PLAN).read_text())
        content = hashlib.sha256()
        for path in parts(self.folder):
            with path.open("rb") as file:
                content.update(hashlib.file_digest(file, "sha256").digest())
        summary = plan | {"counts": dict(counts), "content": content.hexdigest()} | notes
        write_json(self.folder / SUMMARY, summary)
        for leftover in (self.folder / PLAN, *self.folder.glob(".*.partial")):
            leftover.unlink(missing_ok=True)
        return dict(counts)


def conform(table: pa.Table, schema: pa.Schema = SCHEMA) -> pa.Table:
    """The table with exactly the columns of a schema; those it lacks are null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def counts_of(part: Path) -> Counter[str]:
    """The counts that a part was written with."""
    return Counter(json.loads((pq.read_schema(part).metadata or {}).get(b"counts", b"{}")))


def read_stage(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a stage that is done, in order. Raises `StylesimError` where it is not."""
    digest(folder)
    names = list(columns) if columns else SCHEMA.names
    schema = pa.schema([SCHEMA.field(name) for name in names])
    return pa.concat_tables(
        [schema.empty_table(), *(pq.read_table(p, columns=names).replace_schema_metadata() for p in parts(folder))]
    )


def digest(folder: Path) -> str:
    """What a finished stage is told from any other by. Raises `StylesimError` where it is not finished."""
    try:
        return hashlib.sha256((folder / SUMMARY).read_bytes()).hexdigest()
    except FileNotFoundError:
        stage = folder.name.partition("-")[2]
        raise StylesimError(
            f"{folder} is not finished, and the next stage reads it: add {stage} to stages=[...], with the same out=..."
        ) from None


def digest_of(files: Iterable[Path], root: Path) -> str:
    """Names and sizes of files; quick, however large they are."""
    listing = sorted((file.relative_to(root).as_posix(), file.stat().st_size) for file in files)
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def open_image_at(locator: str) -> bytes:
    """The bytes of an image: `locator` is a path, TAR::MEMBER, or TAR::OFFSET+SIZE::MEMBER (see `Tar.locator`).

    Raises:
        StylesimError: If the file, the tar or the member cannot be read.
    """
    placed, named = _PLACED.fullmatch(locator), _NAMED.fullmatch(locator)
    try:
        if placed:
            return read_at(placed[1], int(placed[2]), int(placed[3]))
        return _opened(named[1]).read(named[2]) if named else Path(locator).read_bytes()
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise StylesimError(f"{locator} cannot be read ({error or type(error).__name__}).") from error


_NAMED = re.compile(r"(.+?\.tar(?:\.gz)?)::(.*)", re.DOTALL)
_PLACED = re.compile(r"(.+?\.tar)::(\d+)\+(\d+)::.*", re.DOTALL)
# Readers go through one tar after the other; a few stay open for those that do not.
_opened = lru_cache(maxsize=16)(Tar)


def _on_table(work: Callable[[pa.Table], Piece], part: Path) -> Piece:
    return work(pq.read_table(part).replace_schema_metadata())


def _write_piece(stage: Stage, work: Callable[[Any], Piece], number: int, piece: Any) -> None:
    stage.write(number, work(piece))


def _write_parquet(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=1 << 16)


def _all(job: Callable[[int, Any], None], todo: Mapping[int, Any], processes: int | None) -> Iterator[None]:
    processes = min(processes or os.cpu_count() or 1, len(todo))
    if processes <= 1:
        for number, piece in todo.items():
            yield job(number, piece)
        return
    # Ctrl-C is for this process: the others finish their piece, and say nothing.
    deaf = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(processes, get_context("forkserver"), initializer=signal.signal, initargs=deaf)
    try:
        for task in as_completed([pool.submit(job, number, piece) for number, piece in todo.items()]):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)
