"""The candidate styles; at a tie, the rules keep the earlier one."""

from __future__ import annotations

from dataclasses import dataclass

FLUENT_3D = "lobehub-fluent-emoji-3d"


@dataclass(frozen=True)
class Style:
    """One style: a set of Iconify, or the part of one with an official suffix.

    `family` is the design lineage: whole families are held out. `manner` is how it is drawn.
    Of the names in `source`, those that end in `-<suffix>` belong to the style (all if None), and those
    that end in one of `without` do not.
    """

    name: str
    family: str
    manner: str
    source: str
    suffix: str | None = None
    without: tuple[str, ...] = ()
    emoji: bool = False


def emoji(name: str, family: str, manner: str, source: str = "") -> Style:
    return Style(name, family, manner, source or name, emoji=True)


PEPICONS = ("circle", "circle-filled", "off", "circle-off")
SOLAR = ("broken", "line-duotone", "linear", "outline", "bold", "bold-duotone")

STYLES = [
    emoji("twemoji", "twemoji", "flat"),
    emoji("emojione", "emojione", "flat"),
    emoji("emojione-v1", "emojione", "flat"),
    emoji("noto", "noto", "flat"),
    emoji("noto-v1", "noto", "flat"),
    emoji("openmoji", "openmoji", "outlined"),
    emoji("emojione-monotone", "emojione", "monochrome"),
    emoji("fxemoji", "fxemoji", "flat"),
    emoji("fluent-emoji-3d", "fluent", "3d", FLUENT_3D),
    emoji("fluent-emoji", "fluent", "3d"),
    emoji("fluent-emoji-flat", "fluent", "flat"),
    emoji("fluent-emoji-high-contrast", "fluent", "monochrome"),
    emoji("streamline-emojis", "streamline-emojis", "outlined"),
    Style("pixelarticons", "pixelarticons", "pixel", "pixelarticons", "", ("sharp",)),
    Style("memory", "memory", "pixel", "memory"),
    Style("pixel", "pixel", "pixel", "pixel", "", ("solid",)),
    Style("dinkie-icons", "dinkie-icons", "pixel", "dinkie-icons", "", ("small", "filled", "small-filled")),
    Style("game-icons", "game-icons", "solid", "game-icons"),
    Style("glyphs-poly", "glyphs", "flat", "glyphs-poly"),
    Style("ph-duotone", "phosphor", "duotone", "ph", "duotone"),
    Style("ph-fill", "phosphor", "solid", "ph", "fill"),
    Style("ph-thin", "phosphor", "line", "ph", "thin"),
    Style("solar-broken", "solar", "line", "solar", "broken", SOLAR),
    Style("solar-bold-duotone", "solar", "duotone", "solar", "bold-duotone", SOLAR),
    Style("icon-park", "icon-park", "outlined", "icon-park"),
    Style("icon-park-twotone", "icon-park", "duotone", "icon-park-twotone"),
    Style("pepicons-print", "pepicons", "duotone", "pepicons-print", "", PEPICONS),
    Style("pepicons-pop", "pepicons", "line", "pepicons-pop", "", PEPICONS),
    Style("pepicons-pencil", "pepicons", "line", "pepicons-pencil", "", PEPICONS),
    Style("lucide", "lucide", "line", "lucide"),
    Style("carbon", "carbon", "line", "carbon"),
    Style("vaadin", "vaadin", "solid", "vaadin"),
    Style("freehand-color", "streamline-freehand", "sketch", "streamline-freehand-color"),
    Style("freehand", "streamline-freehand", "sketch", "streamline-freehand"),
    Style("kameleon", "streamline-kameleon", "flat", "streamline-kameleon-color", "", ("duo",)),
    Style("ultimate-color", "streamline-ultimate", "outlined", "streamline-ultimate-color"),
    Style("cyber-color", "streamline-cyber", "outlined", "streamline-cyber-color"),
    Style("plump-duo", "streamline-plump", "duotone", "streamline-plump-color", "", ("flat",)),
    Style("sharp-flat", "streamline-sharp", "flat", "streamline-sharp-color", "flat"),
    Style("flat-color-icons", "flat-color-icons", "flat", "flat-color-icons"),
    Style("marketeq", "marketeq", "line", "marketeq"),
]
