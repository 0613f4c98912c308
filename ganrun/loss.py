"""The players' objectives: pure functions of logits. Every loss is a mean over its batch, in nats.

A loss is any object with `d_loss(real_logits, fake_logits)` and `g_loss(fake_logits, real_logits)`, each
of logits (B,) and giving a scalar to descend. Two attributes may be set: `g_needs_real`, without which
g_loss gets None for the real logits in alternating updates, and `logistic`, where sigmoid(logit) is a probability.
A loss with `g_feature_loss(fake_features, real_features)` is asked for that instead of g_loss.
"""

from torch import Tensor
from torch.nn.functional import relu, softplus


class Minimax:
    """The minimax game. Goodfellow et al. 2014, equation 1 and Algorithm 1.

    D descends -log D(x) - log(1 - D(G(z))), G descends log(1 - D(G(z))), with D = sigmoid(logit), computed
    from the logits. G's gradient vanishes as D(G(z)) -> 0. `real_label` smooths D's target for real samples, and for
    these alone: Salimans et al. 2016, arXiv:1606.03498, section 3.4.

    >>> import torch
    >>> undecided = torch.zeros(4)
    >>> round(Minimax().d_loss(undecided, undecided).item(), 4)  # log 4
    1.3863
    """

    logistic = True  # sigmoid(logit) is the probability of being real

    def __init__(self, real_label: float = 1.0) -> None:
        if not 0 < real_label <= 1:
            raise ValueError(f"real_label={real_label}: must lie in (0, 1], as in 0.9; 1 is no smoothing.")
        self.real_label = real_label

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real = softplus(-real_logits).mean()
        if self.real_label < 1:  # t softplus(-r) + (1 - t) softplus(r) = softplus(-r) + (1 - t) r
            real = real + (1 - self.real_label) * real_logits.mean()
        return real + softplus(fake_logits).mean()

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


class HalfWeighted(NonSaturating):
    """The objectives of the code that Goodfellow et al. 2014 released: D's two terms are averaged, not added.

    D descends (-log D(x) - log(1 - D(G(z)))) / 2; G as in `NonSaturating`. Same optimum, half of D's gradient.

    >>> import torch
    >>> round(HalfWeighted().d_loss(torch.zeros(4), torch.zeros(4)).item(), 4)  # log 2
    0.6931
    """

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return super().d_loss(real_logits, fake_logits) / 2


class LeastSquares:
    """LSGAN. Mao et al. 2017, arXiv:1611.04076, equation 2.

    D descends ((D(x) - b)^2 + (D(G(z)) - a)^2) / 2, G descends (D(G(z)) - c)^2 / 2, on raw outputs. The paper offers
    a, b, c = -1, 1, 0 (Pearson's chi-squared) and 0, 1, 1, which is used in its experiments and here.

    >>> import torch
    >>> LeastSquares().d_loss(torch.tensor([1.0]), torch.tensor([2.0])).item()
    2.0
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        if a == b:
            raise ValueError(f"a={a}: must differ from b={b}, or D is asked to tell nothing apart.")
        self.a, self.b, self.c = a, b, c

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return ((real_logits - self.b).square().mean() + (fake_logits - self.a).square().mean()) / 2

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return (fake_logits - self.c).square().mean() / 2


class Hinge:
    """The hinge loss. Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equations 16 and 17.

    D descends max(0, 1 - D(x)) + max(0, 1 + D(G(z))), G descends -D(G(z)).

    >>> import torch
    >>> Hinge().d_loss(torch.zeros(4), torch.zeros(4)).item()  # an undecided D
    2.0
    """

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


class Relativistic:
    """The relativistic pairing GAN, RpGAN. Jolicoeur-Martineau 2018, arXiv:1807.00734, equations 5 and 6.

    D descends -log sigmoid(D(x) - D(G(z))), pair by pair, and G the same with the roles exchanged: what counts is
    which of the two looks more real, and adding a constant to all logits changes nothing. Used by R3GAN.

    >>> import torch
    >>> round(Relativistic().d_loss(torch.zeros(4), torch.zeros(4)).item(), 4)  # log 2
    0.6931
    """

    g_needs_real = True

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(fake_logits - real_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        return softplus(real_logits - fake_logits).mean()


class RelativisticAverage:
    """The relativistic average GAN, RaGAN. Jolicoeur-Martineau 2018, arXiv:1807.00734, equations 7 and 8.

    D descends -log sigmoid(D(x) - E D(G(z))) - log(1 - sigmoid(D(G(z)) - E D(x))), and G the same with the roles
    exchanged: each logit against the mean of the other kind, gradients flowing through the mean as well.

    >>> import torch
    >>> round(RelativisticAverage().d_loss(torch.zeros(4), torch.zeros(4)).item(), 4)  # log 4
    1.3863
    """

    g_needs_real = True

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(fake_logits.mean() - real_logits).mean() + softplus(fake_logits - real_logits.mean()).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        return softplus(real_logits.mean() - fake_logits).mean() + softplus(real_logits - fake_logits.mean()).mean()


class FeatureMatching(NonSaturating):
    """Feature matching. Salimans et al. 2016, arXiv:1606.03498, section 3.1.

    D as in `NonSaturating`; G descends || E f(x) - E f(G(z)) ||^2, with f the last hidden layer of D (`D.features`),
    flattened. The real features are a target: no gradient flows through them.

    >>> import torch
    >>> FeatureMatching().g_feature_loss(torch.zeros(2, 3), torch.ones(4, 3)).item()
    3.0
    """

    def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor:
        real, fake = real_features.detach().flatten(1).mean(0), fake_features.flatten(1).mean(0)  # (F,)
        return (real - fake).square().sum()
