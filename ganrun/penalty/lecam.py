"""LeCam regularization, a penalty on D's logits."""

import torch
from torch import Tensor, nn

from ganrun.data.dataset import DataSpec
from ganrun.penalty.base import not_negative
from ganrun.protocols import Penalty


class LeCam(Penalty, nn.Module):
    """LeCam: weight * (E[relu(D(x) - a_F)^2] + E[relu(a_R - D(G(z)))^2]). Tseng et al. 2021, arXiv:2104.03310.

    The anchors a_R and a_F are moving averages of D's mean logit on real and on fake samples. They are first updated
    with the batch, and pass no gradient. clipped=False omits the relu, as in the paper's text; the authors' released
    code has it. Differs in that the first batch sets the anchors; the authors' StyleGAN2 code starts at 0 and corrects
    the bias. There is no `every`: the term is cheap, and every batch must update the anchors.
    The anchors are buffers, so they are in the state_dict.
    Raises ValueError for a decay outside [0, 1).

    >>> penalty = LeCam(weight=0.5)
    >>> penalty.logits_term(torch.tensor([2.0]), torch.tensor([-1.0])).item()  # ((2 + 1)^2 + (2 + 1)^2) / 2
    9.0
    """

    real_anchor: Tensor
    fake_anchor: Tensor
    started: Tensor

    def __init__(self, weight: float = 0.3, decay: float = 0.99, clipped: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: must lie in [0, 1), such as 0.99.")
        nn.Module.__init__(self)
        self.weight, self.decay, self.clipped = not_negative("weight", weight), decay, clipped
        self.has_term = self.weight > 0
        self.register_buffer("real_anchor", torch.zeros(()))
        self.register_buffer("fake_anchor", torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))

    def uses_batch_statistics(self, spec: DataSpec) -> bool:
        return True  # each call moves the anchors

    def logits_term(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The scalar to add to D's loss. Logits are (B,)."""
        with torch.autocast(real_logits.device.type, enabled=False):
            real_logits, fake_logits = real_logits.float(), fake_logits.float()
            self._update(real_logits.detach(), fake_logits.detach())
            above = real_logits - self.fake_anchor  # (B,)
            below = self.real_anchor - fake_logits  # (B,)
            if self.clipped:
                above, below = above.relu(), below.relu()
            return self.weight * (above.square().mean() + below.square().mean())

    @torch.no_grad()
    def _update(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """The test for the first batch runs on the device, so that the CPU does not wait for it."""
        for anchor, logits in ((self.real_anchor, real_logits), (self.fake_anchor, fake_logits)):
            mean = logits.mean()
            anchor.copy_(torch.where(self.started, anchor.lerp(mean, 1 - self.decay), mean))
        self.started.fill_(True)
