"""Iterate a stream with the worker processes of its plan."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.synchronize import Semaphore
from typing import Any

import torch
from torch.utils.data import DataLoader

from stylesim.core.errors import DataError, StylesimError
from stylesim.data.sampling.stream import Stream

PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that a process gets when its parent dies."""
STARTS = 3
"""How often workers are started before the run gives up."""
START_S = 120.0
"""Seconds within which each worker must start. CPython 3.11 hangs in a forked process, rarely, if another thread of the
parent started or ended at that moment: it waits for a lock of the interpreter that nobody holds."""

logger = logging.getLogger(__name__)


@dataclass
class StreamLoader:
    """Iterate a stream: yields `Batch`, or `UncutBatch` if `views.on_device`.

    `len` counts from the start of the run, wherever the stream starts, because Lightning counts the batches done before
    a resume as fetched.
    """

    stream: Stream
    workers: int
    """Number of worker processes; 0 reads in this process, as one worker would."""
    repeat: int = 0
    """Repeat the first micro-batches, this many; 0 reads the whole stream."""
    done: int | None = None
    """Number of micro-batches that the trainer has counted so far; None means all before the start of the stream."""
    seconds_waited: float = 0.0
    """How long the consumer has waited for batches so far."""

    def __len__(self) -> int:
        done = self.stream.start if self.done is None else self.done
        return done + self.stream.stop - self.stream.start

    def __iter__(self) -> Iterator[Any]:
        batches = self._read(self.stream) if not self.repeat else self._repeated()
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - asked
            if batch is None:
                return
            if isinstance(batch, StylesimError):
                raise batch
            yield batch

    def _read(self, stream: Stream) -> Iterator[Any]:
        for _ in range(STARTS):
            started = multiprocessing.get_context().Semaphore(0)
            loader = DataLoader(
                stream,
                batch_size=None,
                collate_fn=keep_as_is,
                num_workers=self.workers,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=partial(start_worker, started=started),
            )
            batches = iter(loader)
            workers = getattr(batches, "_workers", ())
            for worker in workers:
                worker._popen.terminate = worker._popen.kill  # they ignore SIGTERM: joining them would never end
            if all(started.acquire(timeout=START_S) for _ in workers):
                return batches
            logger.warning("A data worker did not start within %g s, so all are started again.", START_S)
            batches._shutdown_workers()  # type: ignore[attr-defined]  # kills those that do not answer
        raise DataError(f"Data workers did not start in {STARTS} attempts of {START_S:g} s: set data.workers=0.")

    def _repeated(self) -> Iterator[Any]:
        first = list(self._read(replace(self.stream, start=0, stop=self.repeat)))
        return (first[m % self.repeat] for m in range(self.stream.start, self.stream.stop))


def start_worker(worker: int, started: Semaphore) -> None:
    """Let a worker ignore Ctrl-C and SIGTERM, die with the main process, and report that it has started.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the run ends its workers itself, after its step.
    If the run is killed, a worker that is filling its buffer would otherwise go on for minutes.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    started.release()


def keep_as_is(batch: Any) -> Any:
    """Return a batch unchanged: DataLoader's own collation would split its tuples."""
    return batch
