"""Find the works of a style database that are nearest in style to images.

    stylesim search db=works.db queries=/my/images checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim search db=works.db queries=my_descriptors k=20 where="period = '1890s' and year < 1895"
    stylesim search db=postgresql://me@server/art#works queries=/my/images where="tags contains 'artist:monet'"

A filter consists of comparisons (`=`, `!=`, `<`, `in (...)`, `like 'a%'`, `between 1 and 2`, `is null`), and for tags
`contains`, joined by `and`, `or`, `not` and parentheses. Text stands in single quotes.
"""

from __future__ import annotations

from functools import partial
from os.path import expanduser
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from stylesim.runtime.embedding_run import embed_roots, find_images, is_descriptor_set, load_model
from stylesim.runtime.existence_checks import check_database, check_encoders, check_images
from stylesim.runtime.launch import run
from stylesim.runtime.settings import PLAIN_TEXT, EmbeddingSettings

PRINTED = 10
"""Number of queries that are printed; the files have all of them."""


class Settings(EmbeddingSettings):
    """The keys of `stylesim search`."""

    db: str = Field(
        description="A folder, or postgresql://USER@HOST/DATABASE#SCHEMA (the password in PGPASSWORD).",
        json_schema_extra=PLAIN_TEXT,
    )
    queries: str | list[str] = Field(
        description="A folder, a table of paths, shards or descriptors that `embed` wrote; or a list of image sources."
    )
    k: PositiveInt = Field(10, description="Number of nearest works for each query.")
    where: str | None = Field(
        None,
        description="Only works that this filter admits, such as \"period = '1890s'\".",
        json_schema_extra=PLAIN_TEXT,
    )
    exact: bool | None = Field(
        None, description="true compares all works, false uses the index; null uses it from 200,000 works on."
    )


def main(cfg: DictConfig) -> dict[str, float]:
    """Search `cfg.db` for each of `cfg.queries` and return the number of queries and of neighbours, and similarities.

    Writes into `cfg.run_dir`: `neighbours.csv`, `neighbours.json` and `search.html`, and the `descriptors/` of queries
    that were not embedded before.

    Raises:
        ConfigError: If the queries or the database do not exist, or `where` is not a filter.
        WeightsError: If weights are missing, or the encoder's head is untrained.
        DataError: If `db` is not a database, or the queries were made by another encoder.
    """
    roots = check_images(cfg, "queries")
    check_database(cfg.db)
    from stylesim.retrieval.database.style_database import StyleDatabase

    with StyleDatabase.open(expanduser(cfg.db)) as database:
        database.count(cfg.where)  # a filter that is wrong is refused before a model is loaded
        folder = Path(expanduser(roots[0].location))
        if not is_descriptor_set(roots):
            check_encoders(cfg)
            from stylesim.evaluation.add_images import refuse_other_encoder

            folder = Path(cfg.run_dir) / "descriptors"
            encoder = load_model(cfg)
            refuse_other_encoder(database, encoder, flips=cfg.flips)
            embed_roots(encoder, roots, folder, cfg)
        from stylesim.report.pages.search_report import describe_scale, write_search_report, write_search_tables
        from stylesim.retrieval.descriptor_set import DescriptorSet
        from stylesim.retrieval.readouts import Cosine

        queries = DescriptorSet.load(folder)
        readout = instantiate(cfg.readout)
        is_cosine = isinstance(readout, Cosine)
        found = database.search(
            queries, cfg.k, where=cfg.where, readout=None if is_cosine else readout, exact=cfg.exact
        )
        run_dir = Path(cfg.run_dir)
        write_search_tables(run_dir, found, queries.ids)
        find = partial(find_images, folder)
        page = write_search_report(run_dir, database, found, queries, find, cfg.where, is_cosine=is_cosine)
        scale = describe_scale(database) if is_cosine else f"scores of {type(readout).__name__}, no cosines"
    for query, ids, similarities in zip(queries.ids[:PRINTED], found.ids, found.similarities.tolist(), strict=False):
        print(query)
        for rank, (id, similarity) in enumerate(zip(ids[:3], similarities, strict=False), start=1):
            print(f"  {rank}. {similarity:.3f}  {id}")
        if not ids:
            print("  the filter admits no work" if cfg.where else "  the database is empty")
    print(f"{scale}\nreport: {page}", flush=True)
    first = [row[0] for ids, row in zip(found.ids, found.similarities.tolist(), strict=True) if ids]
    metrics = {"queries": len(queries), "neighbours": sum(map(len, found.ids))}
    return metrics | ({"mean_similarity@1": sum(first) / len(first)} if first else {})


if __name__ == "__main__":
    run("search")
