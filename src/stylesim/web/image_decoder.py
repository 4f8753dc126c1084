"""Decode uploaded images in worker processes, which are killed and replaced when they take too long or crash."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from io import BytesIO
from multiprocessing.connection import Connection
from queue import Queue

from PIL import Image

from stylesim.core.errors import CorruptSampleError
from stylesim.core.images import open_image

UPLOAD_FORMATS = ("JPEG", "PNG", "WEBP")
MAX_UPLOAD_PIXELS = 40_000_000
KEPT_SIDE = 1024
"""A larger image is reduced until its longer side has this many pixels; encoders see far fewer."""
WORKER_MEMORY = 2 << 30
"""Address space of a worker in bytes, where the system can limit it."""


def decode_upload(data: bytes) -> bytes:
    """Return an uploaded image as an upright RGB PNG. It runs in a worker.

    Raises:
        CorruptSampleError: If the data is not a whole image of a format in `UPLOAD_FORMATS`, or has too many pixels.
    """
    try:
        with Image.open(BytesIO(data), formats=UPLOAD_FORMATS):
            pass
    except Exception as error:  # PIL raises errors of nearly every kind for what is no image
        raise CorruptSampleError(f"The file is not an image of the formats {', '.join(UPLOAD_FORMATS)}.") from error
    image = open_image(data, max_pixels=MAX_UPLOAD_PIXELS)
    image.thumbnail((KEPT_SIDE, KEPT_SIDE))
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


class ImageDecoder:
    """A pool of worker processes that decode one image at a time each.

    Args:
        workers: Number of processes.
        timeout: Seconds after which a worker is killed.
        decode: What a worker does with the data of an upload.
    """

    def __init__(self, workers: int = 2, timeout: float = 10, decode: Callable[[bytes], bytes] = decode_upload) -> None:
        self.timeout, self._decode = timeout, decode
        self._idle: Queue[_Worker] = Queue()
        for _ in range(workers):
            self._idle.put(_Worker(decode))

    def __call__(self, data: bytes) -> bytes:
        """Decode one upload; waits for an idle worker. It may be called by many threads.

        Raises:
            CorruptSampleError: If the image is refused, its worker takes too long, or its worker ends.
        """
        worker = self._idle.get()
        try:
            return worker.decode(data, self.timeout)
        finally:
            if not worker.process.is_alive():
                worker.kill()
                worker = _Worker(self._decode)
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers."""
        while not self._idle.empty():
            self._idle.get().kill()


class _Worker:
    def __init__(self, decode: Callable[[bytes], bytes]) -> None:
        # A fresh process: a fork would copy the model and the threads of this one.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, decode), daemon=True)
        self.process.start()
        other.close()
        self.connection.recv()  # the worker is ready, so the time of its start counts for no image

    def decode(self, data: bytes, timeout: float) -> bytes:
        try:
            self.connection.send_bytes(data)
            if not self.connection.poll(timeout):
                self.kill()
                raise CorruptSampleError(f"The image could not be decoded within {timeout:g} seconds.")
            decoded, reason = self.connection.recv()
        except (EOFError, OSError) as error:
            self.kill()
            raise CorruptSampleError("The image could not be decoded: the decoder ended.") from error
        if decoded is None:
            raise CorruptSampleError(reason)
        return decoded

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, decode: Callable[[bytes], bytes]) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    _limit_memory()
    connection.send(None)
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:  # the parent has ended
            return
        try:
            connection.send((decode(data), ""))
        except CorruptSampleError as error:
            connection.send((None, str(error)))
        except MemoryError:
            connection.send((None, "The image needs too much memory."))


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = WORKER_MEMORY if hard == resource.RLIM_INFINITY else min(WORKER_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
