"""One stage of long work: a folder of parquet parts that can be interrupted and continued."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import ConfigError
from stylesim.core.files import sha256_of_file, sha256_of_text, write_json
from stylesim.core.legacy_configs import current_config
from stylesim.core.progress import progress
from stylesim.core.stages.stage_parts import Part, conform, part_paths, read_counts, write_parquet

SUMMARY = "summary.json"
"""Settings, inputs, counts and content digest of a finished stage."""
PLAN = "plan.json"
"""Settings and inputs of an unfinished stage."""


@dataclass(frozen=True)
class Stage:
    """One folder of the work folder.

    A stage function begins, maps its input (or writes parts with `write_part`), and finishes:

        def to_upper(stage: Stage, *, repeat: int = 1) -> dict[str, Any]:
            if (done := stage.begin()) is not None:
                return done
            return stage.finish(stage.map_parts(partial(_to_upper, repeat=repeat)))
    """

    folder: Path
    settings: Mapping[str, Any]
    """The settings that the result depends on, as plain values."""
    source: Path | None = None
    """The folder of the previous stage; None for the first one."""
    processes: int | None = None
    """Number of processes; None uses one per core."""
    redo: bool = False
    """Whether to delete results of other settings or another input; otherwise they are an error."""
    show: bool = True
    """Show progress."""
    schema: pa.Schema | None = None
    """The columns of the parts; None leaves them as they come."""

    def begin(self, **inputs: str) -> dict[str, Any] | None:
        """Prepare the folder, unless the stage is already finished.

        Args:
            **inputs: Digests of all other inputs: lists, source files, evaluation sets.

        Returns:
            The counts of the stage if it is finished, otherwise None.

        Raises:
            ConfigError: If the previous stage is not finished, if the folder holds results of other settings or another
                input and `redo` is not set, or if it holds files of something else.
        """
        before = {"before": stage_digest(self.source)} if self.source else {}
        plan = json.loads(json.dumps({"settings": current_config(self.settings), "inputs": before | inputs}))
        noted = next((p for p in (self.folder / SUMMARY, self.folder / PLAN) if p.is_file()), None)
        begun = json.loads(noted.read_text(encoding="utf-8")) if noted else plan
        changed = _changed_keys(plan, begun)
        if changed and os.listdir(self.folder) != [PLAN]:  # if there is only a plan, it is replaced below
            if not self.redo:
                raise ConfigError(
                    f"{self.folder} was made with other settings or from another input ({', '.join(changed)} differ):"
                    " add redo=true to make it again, or give another out=..."
                )
            # Renamed first: if it were only half deleted under its own name, the folder could look finished.
            trash = self.folder.with_name(".redone")
            shutil.rmtree(trash, ignore_errors=True)
            self.folder.rename(trash)
            shutil.rmtree(trash)
        elif noted and noted.name == SUMMARY and not changed:
            return begun["counts"]
        elif not noted and self.folder.is_dir() and any(self.folder.iterdir()):
            raise ConfigError(f"{self.folder} holds files that no stage has written. Give another out=...")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / PLAN, plan)
        return None

    def source_parts(self) -> list[Path]:
        """Return the parts of the previous stage, in order."""
        assert self.source is not None, "the first stage has no previous one"
        return part_paths(self.source)

    def map_parts(self, work: Callable[[pa.Table], Part]) -> Counter[str]:
        """Apply `work` to each part of the previous stage, and write the result as the part with the same number.

        Parts that an interrupted run has already written are not made again, but their counts are included.

        Args:
            work: Called in other processes, so it must be a module-level function, or a `partial` of one.

        Returns:
            The sum of the counts of all parts.
        """
        return self.map_inputs(partial(_on_table, work), self.source_parts())

    def map_inputs(self, work: Callable[[Any], Part], inputs: Sequence[Any]) -> Counter[str]:
        """Apply `work` to each input, and write the result as the part with the same number (see `map_parts`).

        Args:
            work: Called in other processes, so it must be a module-level function, or a `partial` of one.
            inputs: Values of any type that can be pickled.

        Returns:
            The sum of the counts of all parts.
        """
        todo = {n: item for n, item in enumerate(inputs) if not self.part_path(n).exists()}
        job = partial(_write_result, self, work)
        with progress(self.folder.name, len(inputs), unit="pieces", show=self.show) as advance:
            advance(len(inputs) - len(todo))
            for _ in _run_all(job, todo, self.processes):
                advance(1)
        return sum((read_counts(self.part_path(n)) for n in range(len(inputs))), Counter())

    def part_path(self, number: int) -> Path:
        """Return the path of one part."""
        return self.folder / f"part-{number:05d}.parquet"

    def write_part(self, number: int, part: Part) -> None:
        """Write a part and its dropped rows atomically; the counts go into the metadata of the parquet file."""
        table = part.table if self.schema is None else conform(part.table, self.schema)
        table = table.replace_schema_metadata({"counts": json.dumps(dict(sorted(part.counts.items())))})
        if part.dropped is not None:
            write_parquet(part.dropped.select(["id", "reason"]), self.folder / f"dropped-{number:05d}.parquet")
        write_parquet(table, self.part_path(number))

    def finish(self, counts: Mapping[str, Any], **notes: Any) -> dict[str, Any]:
        """Write `summary.json`, which marks the stage as finished. Write plots and samples before this call.

        Args:
            counts: The counts of the stage.
            **notes: Further entries of the summary.

        Returns:
            The counts.
        """
        plan = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        content = hashlib.sha256()
        for path in part_paths(self.folder):
            content.update(bytes.fromhex(sha256_of_file(path)))
        summary = plan | {"counts": dict(counts), "content": content.hexdigest()} | notes
        write_json(self.folder / SUMMARY, summary)
        for leftover in (self.folder / PLAN, *self.folder.glob(".*.partial")):
            leftover.unlink(missing_ok=True)
        return dict(counts)


def stage_digest(folder: Path) -> str:
    """Return a digest that identifies the result of a finished stage.

    Raises:
        ConfigError: If the stage is not finished.
    """
    try:
        return sha256_of_file(folder / SUMMARY)
    except FileNotFoundError:
        stage = folder.name.partition("-")[2]
        raise ConfigError(
            f"{folder} is not finished, but the next stage reads it. Add {stage} to stages=[...], with the same out=..."
        ) from None


def listing_digest(files: Iterable[Path], root: Path) -> str:
    """Return a digest of the names and sizes of files; no file is opened."""
    listing = sorted((file.relative_to(root).as_posix(), file.stat().st_size) for file in files)
    return sha256_of_text(json.dumps(listing))


def _changed_keys(plan: Mapping[str, Any], begun: Mapping[str, Any]) -> list[str]:
    """Return the settings and inputs that differ. A missing setting of an older plan counts as null."""
    begun = current_config(begun)  # an earlier version may have used other names
    return sorted(
        key
        for section in plan
        for key in plan[section] | begun[section]
        if plan[section].get(key) != begun[section].get(key)
    )


def require_positive(key: str, value: int | None) -> None:
    """Raise `ConfigError` for a setting that is neither null nor a positive integer."""
    if value is not None and value < 1:
        raise ConfigError(f"{key} must be a positive integer, got {value}.")


def _on_table(work: Callable[[pa.Table], Part], part: Path) -> Part:
    return work(pq.read_table(part).replace_schema_metadata())


def _write_result(stage: Stage, work: Callable[[Any], Part], number: int, item: Any) -> None:
    stage.write_part(number, work(item))


def _run_all(job: Callable[[int, Any], None], todo: Mapping[int, Any], processes: int | None) -> Iterator[None]:
    processes = min(processes or os.cpu_count() or 1, len(todo))
    if processes <= 1:
        for number, item in todo.items():
            yield job(number, item)
        return
    # Only this process handles Ctrl-C; the others finish their part.
    ignore_interrupt = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(
        processes, get_context("forkserver"), initializer=signal.signal, initargs=ignore_interrupt
    )
    try:
        for task in as_completed([pool.submit(job, number, item) for number, item in todo.items()]):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)
