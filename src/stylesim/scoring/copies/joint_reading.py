"""Read the verdict on style and the copy check side by side; neither changes the other."""

from __future__ import annotations

from stylesim.scoring.attribution.attribution_verdict import Kind
from stylesim.scoring.copies.copy_check import Flag

NOT_LEGAL = (
    "Neither the attribution nor the copy check is a legal finding. Style similarity says how alike images look to one"
    " encoder; whether a work was copied, and whether that was allowed, is for people to decide."
)


def read_together(style: Kind, copy: Flag | None) -> str:
    """Say in a sentence what both verdicts mean together.

    Args:
        style: The verdict on style.
        copy: The flag of the copy check; None if it was not available.
    """
    if copy is None:
        return "Copy check not available: resemblance in style and copying cannot be told apart here."
    copied = copy != "none"
    if style == "attributed" and copied:
        return "Style and copying are confounded: look at the copy first, because a copy of a work also has its style."
    if style == "attributed":
        return "Resemblance in style: no work of the gallery was found to be copied."
    if copied:
        return "A work of the gallery may have been copied, although the style is not attributed: look at the pair."
    return "Neither a style of this gallery nor a copy of one of its works was established."
