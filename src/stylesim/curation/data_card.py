"""Write the data card of a curated data set: what it contains, where it comes from, and what was done to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from stylesim.core.stages.stage import SUMMARY
from stylesim.curation.deduplicate.contamination_note import checked_against
from stylesim.curation.stage import Stage
from stylesim.report.tables.text_tables import markdown_table

if TYPE_CHECKING:
    from stylesim.data.shards.shard_index import Index

TAGS_SHOWN = 20
RIGHTS = """\
The images belong to their authors. They were found on the web at the addresses in `part-*.parquet`; what you may do
with them is decided by their authors and by the law of your country, and this card gives no licence to any of them. The
metadata has its own licence: LAION's is CC BY 4.0, and so is that of ContraStyles, whose authors ask to be cited. Tags
are names found in captions: they say that somebody wrote a name next to an image, not that the artist made it. To
remove an image on request, look up its URL or id in the parts, and the image itself by its `name` in the shards."""


def data_card(stage: Stage, counts: Mapping[str, Any], indices: Mapping[str, Index], max_size: int | None) -> str:
    """Return the README.md of the shards in `stage.folder`, in Markdown. The same inputs give the same text.

    Args:
        stage: The stage that has written the shards.
        counts: Its counts.
        indices: The index of each split.
        max_size: The largest short side of an image, in px; None if the original sizes were kept.
    """
    size = f"with a short side of at most {max_size} px" if max_size else "in their original sizes"
    lines = ["# Images with style tags", "", f"{counts['images']:,} images {size}, as WebDataset shards.", ""]
    sizes = [
        (
            f"`{name}/`",
            f"{index.count:,}",
            f"{len(index.shards):,}",
            f"{len(index.tags):,}",
            f"{_megabytes(index):,.1f}",
        )
        for name, index in indices.items()
    ]
    lines += [markdown_table(pd.DataFrame(sizes, columns=["", "images", "shards", "tags", "MB"]))]
    lines += ["Train on it with `stylesim train data=laion_styles data.root=.../train`.", ""]
    if counts["query_artists"]:
        lines += [f"`query/` holds images of {counts['query_artists']:,} tags of which `train/` has more images.", ""]
    lines += ["## Cleared of evaluation sets", ""]
    lines += [f"- {line}" for line in checked_against(stage.folder / "train")] or ["None were given."]
    tags = indices["train"].tags if "train" in indices else {}
    ranked = sorted(tags.items(), key=lambda pair: (-pair[1], pair[0]))
    frequent = pd.DataFrame(
        [(tag, f"{count:,}") for tag, count in ranked[:TAGS_SHOWN]], columns=["tag", "training images"]
    )
    lines += ["", "## Most frequent tags", "", markdown_table(frequent)]
    lines += ["## How it was made", ""]
    for summary in sorted(stage.folder.parent.glob(f"*-*/{SUMMARY}")):
        if summary.parent.name < stage.folder.name:
            content = json.loads(summary.read_text(encoding="utf-8"))
            lines += _section(summary.parent.name, content["settings"], content["counts"])
    lines += [*_section(stage.folder.name, stage.settings, counts), "## Rights", "", RIGHTS]
    return "\n".join(lines) + "\n"


def _section(name: str, settings: Mapping[str, Any], counts: Mapping[str, Any]) -> list[str]:
    count_lines = [f"- {key.replace('_', ' ')}: {value:,}" for key, value in counts.items()]
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
    return [f"### {name}", "", *count_lines, "", "```json", text, "```", ""]


def _megabytes(index: Index) -> float:
    return sum(shard.bytes for shard in index.shards) / 1e6
