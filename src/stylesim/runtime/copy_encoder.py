"""Load the encoder of a copy check, or say why it is not available."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from stylesim.core.errors import WeightsError

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder

UNAVAILABLE = "copy check not available"

log = logging.getLogger(__name__)


def load_copy_encoder(cfg: DictConfig) -> StyleEncoder | str:
    """Return the encoder of `copy_encoder`, or why there is none; missing weights are logged, and stop nothing."""
    if cfg.get("copy_encoder") is None:
        return f"{UNAVAILABLE}: it was turned off"
    from stylesim.encoders.weights.weight_keywords import check_model_weights

    try:
        check_model_weights(cfg.copy_encoder, "copy_encoder.")
        return instantiate(cfg.copy_encoder)
    except (WeightsError, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, WeightsError):
            raise
        reason = f"{UNAVAILABLE}: {cause}"
        log.warning("%s", reason)
        return reason
