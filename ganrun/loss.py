"""The players' objectives: pure functions of logits. Every loss is a mean over its batch, in nats.

A loss is any object with `d_loss(real_logits, fake_logits)` and `g_loss(fake_logits, real_logits)`, each
of logits (B,) and giving a scalar to descend. Two attributes may be set: `g_needs_real`, without which
g_loss gets None for the real logits in alternating updates, and `logistic`, where sigmoid(logit) is a probability.
"""

from torch import Tensor
from torch.nn.functional import softplus


class Minimax:
    """The minimax game. Goodfellow et al. 2014, equation 1 and Algorithm 1.

    D descends -log D(x) - log(1 - D(G(z))), G descends log(1 - D(G(z))), with D = sigmoid(logit), computed
    from the logits. G's gradient vanishes as D(G(z)) -> 0.

    >>> import torch
    >>> undecided = torch.zeros(4)
    >>> round(Minimax().d_loss(undecided, undecided).item(), 4)  # log 4
    1.3863
    """

    logistic = True  # sigmoid(logit) is the probability of being real

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -softplus(fake_logits).mean()


class NonSaturating(Minimax):
    """The non-saturating game. Goodfellow et al. 2014, section 3.

    D as in `Minimax`; G descends -log D(G(z)), whose gradient in the logit tends to -1 as D(G(z)) -> 0.

    >>> import torch
    >>> round(NonSaturating().g_loss(torch.zeros(4)).item(), 4)  # log 2
    0.6931
    """

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return softplus(-fake_logits).mean()


class Wasserstein:
    """Wasserstein GAN. Arjovsky et al. 2017, arXiv:1701.07875, equation 2 and Algorithm 1.

    The critic descends E f(G(z)) - E f(x), G descends -E f(G(z)); f has to be kept Lipschitz by a penalty.

    >>> import torch
    >>> Wasserstein().d_loss(torch.tensor([2.0]), torch.tensor([0.5])).item()
    -1.5
    """

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()
