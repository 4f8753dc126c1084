"""The web application: the page, its parts that htmx exchanges, and the JSON API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware

from stylesim.core.errors import ConfigError, CorruptSampleError, DataError
from stylesim.web.image_batches import ImageBatches
from stylesim.web.image_decoder import ImageDecoder
from stylesim.web.request_guard import MAX_BODY, RateLimit, RequestGuard
from stylesim.web.works import Works

MAX_UPLOAD = 20 << 20
MAX_IMAGES = 32
"""Largest number of images on one side of a comparison."""
WAITING = 64
"""Number of uploads that are processed or wait for it; further ones are refused."""

# Uploads stay in memory: by default a part above 1 MiB would be written to a temporary file.
MultiPartParser.spool_max_size = MAX_BODY + 1

Image = Annotated[UploadFile, File(description="A JPEG, PNG or WebP of at most 20 MiB.")]
Images = Annotated[list[UploadFile], File(description=f"At most {MAX_IMAGES} images.")]
_TEMPLATES = Environment(
    loader=PackageLoader("stylesim.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Uploads:
    """Turns uploads into descriptors."""

    def __init__(self, decoder: ImageDecoder, batches: ImageBatches) -> None:
        self.decoder, self.batches, self.waiting = decoder, batches, 0

    async def embed(self, files: Sequence[UploadFile]) -> Float[np.ndarray, "n d"]:
        """Decode and embed some uploads.

        Raises:
            HTTPException: If there are too many, one is too large, or the server is busy.
            CorruptSampleError: If one is not an image that is accepted.
        """
        if not 1 <= len(files) <= MAX_IMAGES:
            raise HTTPException(422, f"Send 1 to {MAX_IMAGES} images, got {len(files)}.")
        if self.waiting + len(files) > WAITING:
            raise HTTPException(503, "The server is busy. Try again in a few seconds.", {"Retry-After": "5"})
        self.waiting += len(files)
        try:
            images = []
            for file in files:
                data = await file.read(MAX_UPLOAD + 1)
                if len(data) > MAX_UPLOAD:
                    raise HTTPException(413, f"An image may have at most {MAX_UPLOAD >> 20} MiB.")
                images.append(await asyncio.to_thread(self.decoder, data))
            return await self.batches(images)
        finally:
            self.waiting -= len(files)


def create_app(
    works: Works, hosts: Collection[str], token: str | None = None, limit: RateLimit | None = None
) -> FastAPI:
    """Return the application.

    Args:
        works: What is searched.
        hosts: Names that requests may address the server by, without a port.
        token: What visitors must know; None admits everyone who reaches the server.
        limit: The rate limit of uploads; None is 60 at once and 5 a second for each visitor.
    """
    batches = ImageBatches(works.embed)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        decoder = await asyncio.to_thread(ImageDecoder)
        app.state.uploads = Uploads(decoder, batches)
        embedding = asyncio.create_task(batches.run())
        yield
        embedding.cancel()
        with suppress(asyncio.CancelledError):
            await embedding
        decoder.close()

    guard = Middleware(RequestGuard, hosts=hosts, token=token, limit=limit or RateLimit(60, 5))
    # FastAPI's own pages of documentation load scripts from another server, so only openapi.json is offered.
    app = FastAPI(title="stylesim", lifespan=lifespan, middleware=[guard], docs_url=None, redoc_url=None)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    _answer_errors(app)
    _add_page(app, works)
    _add_api(app, works)
    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(CorruptSampleError)
    @app.exception_handler(ConfigError)
    @app.exception_handler(DataError)
    @app.exception_handler(HTTPException)
    async def answer(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 422
        detail = str(error.detail) if isinstance(error, HTTPException) else str(error)
        if request.headers.get("hx-request"):
            return HTMLResponse(_TEMPLATES.get_template("error.html.jinja").render(detail=detail), status)
        return JSONResponse({"detail": detail}, status, getattr(error, "headers", None))


def _add_api(app: FastAPI, works: Works) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the server answers, and what it serves."""
        return {"status": "ok", "works": len(works.numbers), "encoder": works.database.encoder["name"]}

    @app.post("/api/search")
    async def search(request: Request, image: Image, k: Annotated[int, Query(ge=1, le=100)] = 10) -> dict[str, Any]:
        """Find the works nearest in style. Further query parameters filter: `?period=1890s&tags=artist:monet`."""
        where = works.where({name: value for name, value in request.query_params.items() if name != "k"})
        [descriptor] = await app.state.uploads.embed([image])
        found = await asyncio.to_thread(works.search, descriptor, k, where)
        return _with_scale(works, {"neighbours": found})

    @app.post("/api/attribute")
    async def attribute(image: Image) -> dict[str, Any]:
        """Say whose works an image resembles in style, with probabilities measured on the works themselves."""
        [descriptor] = await app.state.uploads.embed([image])
        return _with_scale(works, await asyncio.to_thread(works.attribute, descriptor))

    @app.post("/api/score")
    async def score(generated: Images, reference: Images) -> dict[str, Any]:
        """Compare two sets of images in style (GSS)."""
        vectors = [await app.state.uploads.embed(side) for side in (generated, reference)]
        return _with_scale(works, works.score(*vectors))


def _add_page(app: FastAPI, works: Works) -> None:
    def page(name: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(_TEMPLATES.get_template(f"{name}.html.jinja").render(works=works, **values))

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return page("index", max_images=MAX_IMAGES)

    @app.post("/parts/result", include_in_schema=False)
    async def result(request: Request, image: Image) -> HTMLResponse:
        form = await request.form()
        where = works.where({name: str(value) for name, value in form.items() if name != "image"})
        [descriptor] = await app.state.uploads.embed([image])
        found = await asyncio.to_thread(works.search, descriptor, 12, where)
        try:
            attribution, reason = await asyncio.to_thread(works.attribute, descriptor), ""
        except DataError as error:
            attribution, reason = None, str(error)
        return page("result", found=found, attribution=attribution, reason=reason, where=where)

    @app.post("/parts/comparison", include_in_schema=False)
    async def comparison(generated: Images, reference: Images) -> HTMLResponse:
        vectors = [await app.state.uploads.embed(side) for side in (generated, reference)]
        return page("comparison", score=works.score(*vectors))

    @app.get("/works/{number}/thumbnail", include_in_schema=False)
    async def thumbnail(number: int) -> Response:
        data = await asyncio.to_thread(works.thumbnail, number)
        if data is None:
            raise HTTPException(404, "There is no such thumbnail.")
        return Response(data, media_type="image/jpeg")


def _with_scale(works: Works, result: dict[str, Any]) -> dict[str, Any]:
    scale = {"different_tags": works.scale.different, "common_tag": works.scale.same}
    return {**result, "encoder": works.database.encoder["name"], "median_similarity_of_works": scale}
