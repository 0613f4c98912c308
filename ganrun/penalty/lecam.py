"""LeCam regularization, which looks at D's logits only."""

import torch
from torch import Tensor, nn

from ganrun.penalty.base import not_negative
from ganrun.protocols import Penalty


class LeCam(Penalty, nn.Module):
    """LeCam: weight * (E[relu(D(x) - a_F)^2] + E[relu(a_R - D(G(z)))^2]). Tseng et al. 2021, arXiv:2104.03310.

    a_R and a_F, the anchors, are moving averages of D's mean logit on real and on fake samples; they take in the
    batch first, and pass no gradient. clipped=False leaves the relu out, as the paper's text does; the authors'
    released code has it. Differs in that the first batch sets the anchors, where their StyleGAN2 code starts at 0
    and corrects the bias. There is no `every`: it costs little, and the anchors have to be updated with every batch.
    The anchors are buffers, which a state_dict has.
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
            raise ValueError(f"decay={decay}: must lie in [0, 1), as 0.99 does.")
        nn.Module.__init__(self)
        self.weight, self.decay, self.clipped = not_negative("weight", weight), decay, clipped
        self.has_term = self.weight > 0
        self.register_buffer("real_anchor", torch.zeros(()))
        self.register_buffer("fake_anchor", torch.zeros(()))
        self.register_buffer("started", torch.tensor(False))

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
        """Whether it is the first batch is decided on the device, so that the CPU need not wait for it."""
        for anchor, logits in ((self.real_anchor, real_logits), (self.fake_anchor, fake_logits)):
            mean = logits.mean()
            anchor.copy_(torch.where(self.started, anchor.lerp(mean, 1 - self.decay), mean))
        self.started.fill_(True)
