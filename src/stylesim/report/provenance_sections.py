"""Build the last sections of every page: the encoder, the provenance, the configuration and the damaged images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.report.html_page import Section, render

ENCODER_FACTS = {"name": "name", "weights": "weights", "licence": "licence", "trained_on": "training images"}


def provenance_sections(run_dir: Path, encoder: Mapping[str, Any], damaged: Sequence[tuple[str, str]]) -> list[Section]:
    """Build the sections that say how the results of a page were made.

    Args:
        run_dir: Folder of the run. Its `config.yaml` and `provenance.json` are shown if they exist.
        encoder: Facts about the encoder: `meta["encoder"]` of a descriptor set.
        damaged: (id, reason) of the images that could not be read.
    """
    facts = {title: encoder.get(key) or "unknown" for key, title in ENCODER_FACTS.items()}
    sections = [Section("Encoder", render("facts.html", facts=facts))]
    if (path := run_dir / "provenance.json").is_file():
        sections.append(
            Section("Provenance", render("facts.html", facts=_provenance_facts(json.loads(path.read_text()))))
        )
    if (path := run_dir / "config.yaml").is_file():
        sections.append(Section("Configuration", render("code.html", code=path.read_text()), folded=True))
    body = render("damaged_images.html", damaged=damaged, shown=200)
    return [*sections, Section("Damaged images", body, folded=not damaged)]


def _provenance_facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what a page says about a run, without the overrides, which are in the command, and Hydra's own choices."""
    choices = (f"{group}={name}" for group, name in provenance.get("choices", {}).items() if "hydra/" not in group)
    versions = (f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    facts = {**provenance, "choices": ", ".join(choices), "versions": ", ".join(versions)}
    return {name: str(value) for name, value in facts.items() if value and name != "overrides"}
