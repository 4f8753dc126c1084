"""Divide styles and contents into training and tests: contents by their rank, and whole families held out."""

from __future__ import annotations

from render import Rasters
from sources import rank
from styles import Style

TRAIN, VALIDATION = 0.70, 0.10  # shares of the contents; the rest is tested
HELD_OUT = {"emoji": 2, "icon": 4}  # families
SPLITS = ("train", "validation", "unseen_contents", "unseen_styles")
Split = list[tuple[Style, str]]  # of (style, content), in the order of the shards


def held_out(styles: list[Style]) -> set[str]:
    """Return the families that are never trained on: in the order of their rank, each if its manners are new.

    The families of Streamline are all trained on, because they come from one publisher.
    """
    families: dict[str, list[Style]] = {}
    for style in styles:
        families.setdefault(style.family, []).append(style)
    chosen, manners = set(), set()
    for emoji, wanted in ((True, HELD_OUT["emoji"]), (False, HELD_OUT["icon"])):
        for family in sorted(families, key=rank):
            own = {style.manner for style in families[family]}
            eligible = families[family][0].emoji == emoji and not family.startswith("streamline")
            if eligible and wanted and not own & manners:
                chosen.add(family)
                manners |= own
                wanted -= 1
    return chosen


def part(content: str) -> str:
    """Return `train`, `validation` or `test`, the same for every style that draws the content."""
    share = int(rank(f"part {content}"), 16) / 16**40  # another hash than the one by which contents were chosen
    return "train" if share < TRAIN else "validation" if share < TRAIN + VALIDATION else "test"


def divide(styles: list[Style], rasters: Rasters) -> dict[str, Split]:
    """Return the four splits, without the images of held-out styles whose contents are not tested."""
    unseen = held_out(styles)
    splits: dict[str, Split] = {split: [] for split in SPLITS}
    for style in styles:
        for content in rasters[style.name]:
            where = part(content)
            if style.family not in unseen:
                splits["unseen_contents" if where == "test" else where].append((style, content))
            elif where == "test":
                splits["unseen_styles"].append((style, content))
    for members in splits.values():
        members.sort(key=lambda member: rank(f"{member[0].name} {member[1]}"))
    return splits
