"""StyleSimilarity: General Style Similarity as a torchmetrics metric, for training loops of generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from stylesim.core.errors import ConfigError, DataError
from stylesim.encoders.load import load_encoder
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.scoring.gss import image_scores, mean_scores, neighbourhood_similarities

SIDES = ("generated", "real")


class StyleSimilarity(Metric):
    """How similar generated images are in style to real works (reference works), over all batches and ranks.

    Call `update` and `compute` rather than the metric itself, because one batch contains images of one side only.

    Images pass through PIL and the encoder's own preprocessing, as files do, so the values are those of
    `stylesim score` on the same images. The encoder is not a submodule of the metric, so it is neither trained nor
    saved in checkpoints. It runs on the metric's device in evaluation mode, without gradients.

    Args:
        encoder: An encoder, or what `stylesim.load_encoder` takes: a name, or the path of a checkpoint.
        readout: `cosine` stores two sums of descriptors, however many images there are. `csls` also computes `csls`,
            with neighbourhoods of 10 images, and stores all descriptors for it.
        reset_real_features: With False, `reset` keeps the real works, so that they are not embedded again every epoch.
        options: Arguments of `torchmetrics.Metric`.

    Raises:
        ConfigError: If `readout` is neither of the two.
        WeightsError: If the encoder cannot be loaded.

    Example:
        >>> similarity = StyleSimilarity("csd_vitl")
        >>> similarity.update(works, real=True)
        >>> similarity.update(generated, real=False)
        >>> similarity.compute()["gss"]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    generated_sum: Float[Tensor, " d"]
    generated_count: Tensor
    generated_descriptors: list[Float[Tensor, "b d"]]
    real_sum: Float[Tensor, " d"]
    real_count: Tensor
    real_descriptors: list[Float[Tensor, "b d"]]

    def __init__(
        self,
        encoder: str | Path | StyleEncoder,
        readout: Literal["cosine", "csls"] = "cosine",
        *,
        reset_real_features: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if readout not in ("cosine", "csls"):
            raise ConfigError(f"The readout of StyleSimilarity must be 'cosine' or 'csls', got {readout!r}.")
        if not isinstance(encoder, StyleEncoder):
            encoder = load_encoder(encoder, device="cpu")
        self._encoder = (encoder,)  # a tuple, so that torch does not register it as a submodule
        self.readout, self.reset_real_features = readout, reset_real_features
        for side in SIDES:
            # float32, because MPS has no float64, which a mean of unit vectors does not need.
            self.add_state(f"{side}_sum", torch.zeros(encoder.dim), dist_reduce_fx="sum")
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{side}_descriptors", [], dist_reduce_fx="cat")
        self._start_lists()

    def update(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], real: bool) -> None:
        """Embed a batch and add it to one side.

        Args:
            images: uint8, or floats in [0, 1] (rounded to 8 bits), of any size.
            real: True for real works, False for generated images.
        """
        (encoder,) = self._encoder
        # A training loop may use autocast. `stylesim score` does not, and the values must be the same.
        with torch.autocast(self.device.type, enabled=False):
            descriptors = normalize(encoder.to(self.device).encode(images.cpu())).to(self.device)
        if real:
            self.real_sum += descriptors.sum(0)
            self.real_count += len(descriptors)
        else:
            self.generated_sum += descriptors.sum(0)
            self.generated_count += len(descriptors)
        if self.readout == "csls":
            (self.real_descriptors if real else self.generated_descriptors).append(descriptors)

    def compute(self) -> dict[str, Tensor]:
        """Compute the scores of all images so far.

        Returns:
            `gss`, `gss_unit_prototype` and `gss_renormalised` (see `mean_scores`), and with `readout="csls"` also
            `csls`.

        Raises:
            DataError: If a side has no images.
        """
        for name, count in (("generated", self.generated_count), ("real", self.real_count)):
            if not count:
                call = f"update(images, real={name == 'real'})"
                raise DataError(f"StyleSimilarity has no {name} images yet. Call {call} before compute().")
        metrics = mean_scores(self.generated_sum / self.generated_count, self.real_sum / self.real_count)
        if self.readout == "csls":
            generated, real = (
                dim_zero_cat(batches).cpu().numpy() for batches in (self.generated_descriptors, self.real_descriptors)
            )
            values = image_scores(generated, real, *neighbourhood_similarities(generated, real))["csls"]
            metrics["csls"] = self.real_sum.new_tensor(values.mean())
        return metrics

    def reset(self) -> None:
        """Remove all images, or only the generated ones with `reset_real_features=False`."""
        real = self.real_sum, self.real_count, [*self.real_descriptors]
        super().reset()
        self._start_lists()
        if not self.reset_real_features:
            self.real_sum, self.real_count, self.real_descriptors = real

    def _start_lists(self) -> None:
        """Add an empty batch of the right width, which a rank without images of a side contributes to the gather."""
        if self.readout == "csls":
            for batches in (self.generated_descriptors, self.real_descriptors):
                batches.append(self.real_sum.new_empty(0, len(self.real_sum)))
