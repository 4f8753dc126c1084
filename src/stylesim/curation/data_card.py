"""The data card of a curated set: what is in it, where it comes from, and what was done to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stylesim.curation.deduplicate.contamination_note import checked_against
from stylesim.curation.stage import SUMMARY, Stage

if TYPE_CHECKING:
    from stylesim.data.shards.shard_index import Index

TAGS_SHOWN = 20
RIGHTS = """\
The pictures belong to those who made them. They were found on the web by the addresses in `part-*.parquet`, and what
you may do with them is for their authors and your country's law to say; this card gives no licence to any of them. The
metadata has its own: LAION's is CC BY 4.0, and so is ContraStyles, whose authors ask to be cited. Tags are names found
in captions: they say that somebody wrote a name beside a picture, not that the artist made it. Who asks for a picture
to be taken out is found by URL or id in the parts, and the image by its `name` in the shards."""


def data_card(stage: Stage, counts: Mapping[str, Any], indices: Mapping[str, Index], max_size: int | None) -> str:
    """README.md for the shards in `stage.folder`, in Markdown. The same inputs give the same text."""
    size = f"a short side of {max_size} px at most" if max_size else "the sizes they were found in"
    lines = ["# Images with style tags", "", f"{counts['images']:,} images, {size}, as WebDataset shards.", ""]
    lines += ["| | images | shards | tags | MB |", "|---|---|---|---|---|"]
    for name, index in indices.items():
        megabytes = sum(shard.bytes for shard in index.shards) / 1e6
        lines.append(
            f"| `{name}/` | {index.count:,} | {len(index.shards):,} | {len(index.tags):,} | {megabytes:,.1f} |"
        )
    lines += ["", "Train on it with `python -m stylesim.train data=laion_styles data.root=.../train`.", ""]
    if counts["query_artists"]:
        lines += [f"`query/` holds images of {counts['query_artists']:,} tags that `train/` has more images of.", ""]
    lines += ["## Cleared of evaluation sets", ""]
    lines += [f"- {line}" for line in checked_against(stage.folder / "train")] or ["Of none: none was named."]
    lines += ["", "## Commonest tags", "", "| tag | training images |", "|---|---|"]
    tags = indices["train"].tags if "train" in indices else {}
    ranked = sorted(tags.items(), key=lambda pair: (-pair[1], pair[0]))
    lines += [f"| {_cell(tag)} | {count:,} |" for tag, count in ranked[:TAGS_SHOWN]]
    lines += ["", "## How it was made", ""]
    for summary in sorted(stage.folder.parent.glob(f"*-*/{SUMMARY}")):
        if summary.parent.name < stage.folder.name:
            made = json.loads(summary.read_text())
            lines += _section(summary.parent.name, made["settings"], made["counts"])
    lines += [*_section(stage.folder.name, stage.settings, counts), "## Rights", "", RIGHTS]
    return "\n".join(lines) + "\n"


def _section(name: str, settings: Mapping[str, Any], counts: Mapping[str, Any]) -> list[str]:
    told = [f"- {key.replace('_', ' ')}: {value:,}" for key, value in counts.items()]
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
    return [f"### {name}", "", *told, "", "```json", text, "```", ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
