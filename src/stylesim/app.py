"""Serve a page on which images are searched, attributed and compared, with a JSON API.

    stylesim app gallery=works.db checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim app gallery=/my/works                         the images are embedded first, into the run folder
    STYLESIM_TOKEN=... stylesim app gallery=works.db host=0.0.0.0 public=true

The page is at http://127.0.0.1:8000 unless another port is given, and Ctrl-C ends it. Other computers reach it only
with public=true, and must send the token in STYLESIM_TOKEN. Uploaded images are never written to disk.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from pydantic import Field

from stylesim.core.errors import ConfigError
from stylesim.runtime.embedding_run import load_model
from stylesim.runtime.existence_checks import check_encoders, check_images, find_database
from stylesim.runtime.launch import run
from stylesim.runtime.settings import PLAIN_TEXT, EmbeddingSettings

if TYPE_CHECKING:
    from stylesim.encoders.style_encoder import StyleEncoder
    from stylesim.retrieval.database.style_database import StyleDatabase

TOKEN = "STYLESIM_TOKEN"
TOKEN_LENGTH = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Settings(EmbeddingSettings):
    """The keys of `stylesim app`."""

    gallery: str = Field(
        description="A style database (a folder or postgresql://...), or images: a folder, a table of paths or shards.",
        json_schema_extra=PLAIN_TEXT,
    )
    label: str = Field("*", description="Which tags are labels: a glob such as artist:*.")
    host: str = Field("127.0.0.1", description="Address to listen on; another than a loopback one needs public=true.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    public: bool = Field(False, description="Let other computers reach the page, with the token in STYLESIM_TOKEN.")
    names: list[str] = Field([], description="Further host names that visitors use to reach the page.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Serve the page until the process is interrupted, and return the number of works.

    Raises:
        ConfigError: If the gallery does not exist, or the address is public without `public` or a token.
        WeightsError: If weights are missing, or the encoder's head is untrained.
        DataError: If the database is of another encoder, or empty.
    """
    token = required_token(cfg.host, cfg.public)
    if missing := [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]:
        raise ConfigError(f'The page needs {", ".join(missing)}. Install what is missing: pip install "stylesim[app]".')
    location = find_database(cfg.gallery)
    if location is None:
        check_images(cfg, "gallery")
    check_encoders(cfg)
    encoder = load_model(cfg)
    import uvicorn

    from stylesim.web.server import create_app
    from stylesim.web.works import Works

    with _build(encoder, cfg) if location is None else _open(location, encoder, cfg) as database:
        works = Works(database, encoder, cfg.label, cfg.batch_size, cfg.device)
        app = create_app(works, {*LOOPBACK, cfg.host, *cfg.names}, token)
        print(f"{len(works.numbers):,} works at http://{cfg.host}:{cfg.port} (Ctrl-C ends)", flush=True)
        uvicorn.run(
            app,
            host=cfg.host,
            port=cfg.port,
            log_level="warning",
            server_header=False,
            h11_max_incomplete_event_size=32 << 10,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=10,
        )
    return {"works": float(len(works.numbers))}


def required_token(host: str, public: bool) -> str | None:
    """Return the token that visitors must send; None on a loopback address.

    Raises:
        ConfigError: If the address is public without `public=true` and a long token.
    """
    try:
        is_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if is_loopback:
        return None
    if not public:
        raise ConfigError(f"host={host} lets other computers reach the page. Add public=true and set {TOKEN}.")
    token = os.environ.get(TOKEN, "")
    if len(token) < TOKEN_LENGTH:
        raise ConfigError(
            f"public=true needs a token of at least {TOKEN_LENGTH} characters in the environment variable {TOKEN},"
            f" got {len(token)}. Make one: python -c 'import secrets; print(secrets.token_urlsafe())'."
        )
    return token


def _open(location: str, encoder: StyleEncoder, cfg: DictConfig) -> StyleDatabase:
    from stylesim.evaluation.add_images import refuse_other_encoder
    from stylesim.retrieval.database.style_database import StyleDatabase

    database = StyleDatabase.open(location)
    refuse_other_encoder(database, encoder, flips=cfg.flips)
    return database


def _build(encoder: StyleEncoder, cfg: DictConfig) -> StyleDatabase:
    """Embed the images of the gallery into a database in the run folder."""
    from stylesim.data.open_samples import open_samples
    from stylesim.evaluation.add_images import add_images, open_database

    database = open_database(Path(cfg.run_dir) / "works.db", encoder, flips=cfg.flips)
    add_images(
        database, encoder, open_samples(check_images(cfg, "gallery")), batch_size=cfg.batch_size, device=cfg.device
    )
    return database


if __name__ == "__main__":
    run("app")
