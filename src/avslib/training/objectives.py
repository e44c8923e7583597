"""What each paper minimises: a model's output and a clip to named loss terms."""

from __future__ import annotations

from torch import Tensor, nn

from avslib.clip import Clip
from avslib.losses import InfoNCE, binary_cross_entropy
from avslib.models.output import Segmentation


class DiffusionAVSObjective(nn.Module):
    """The objective of DiffusionAVS: segmentation, diffusion and contrastive loss (equation 12).

    Args:
        diffusion_weight: lambda 1, of L_simple (equation 9).
        contrastive_weight: lambda 2, of L_contrastive (equation 10); 0 leaves the term out (Table IV).
        contrastive: the contrastive loss between condition and latent.

    Mao et al., DiffusionAVS, section III-C, "Objective function".
    """

    def __init__(
        self,
        *,
        diffusion_weight: float = 1.0,
        contrastive_weight: float = 0.1,
        contrastive: InfoNCE | None = None,
    ) -> None:
        super().__init__()
        self.diffusion_weight = diffusion_weight
        self.contrastive_weight = contrastive_weight
        self.contrastive = InfoNCE() if contrastive is None else contrastive

    def forward(self, output: Segmentation, clip: Clip) -> dict[str, Tensor]:
        """Return ``"loss"`` and its terms, ``"segmentation"``, ``"diffusion"`` and ``"contrastive"``.

        Raises:
            ValueError: if the model was called without ground truth.
        """
        if output.terms is None:
            raise ValueError("output.terms: expected the diffusion's terms; call the model with masks")
        terms = {
            "segmentation": binary_cross_entropy(output.logits, clip.masks, clip.labelled),
            "diffusion": nn.functional.mse_loss(output.terms.predicted_noise, output.terms.noise),
        }
        loss = terms["segmentation"] + self.diffusion_weight * terms["diffusion"]
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive(
                output.terms.condition, output.terms.latent, output.terms.clip
            )
            loss = loss + self.contrastive_weight * terms["contrastive"]
        return {"loss": loss, **terms}
