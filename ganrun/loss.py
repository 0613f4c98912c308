"""The players' objectives: pure functions of logits. Every loss is a mean over its batch, in nats.

Your own loss needs `d_loss(real_logits, fake_logits)` and `g_loss(fake_logits, real_logits)`, which take logits (B,)
and return a scalar to minimize. `ganrun.protocols.Loss` lists what else it may declare.
"""

from torch import Tensor
from torch.nn.functional import relu, softplus

from ganrun.protocols import FeatureLoss, Loss


class Logistic(Loss):
    """D's part of the logistic losses. Goodfellow et al. 2014, Algorithm 1; Salimans et al. 2016, section 3.4.

    D minimizes -log D(x) - log(1 - D(G(z))), with D = sigmoid(logit), computed from the logits.
    real_label: D's target on real samples. Values below 1 are one-sided label smoothing: the first term is
    -real_label log D(x) - (1 - real_label) log(1 - D(x)). The target on fakes stays 0, since smoothing it would give
    wrong samples of G no incentive to change. Raises ValueError for a real_label outside (0, 1].

    >>> import torch
    >>> high = torch.tensor([3.0])  # smoothing adds to the loss of a confident D on real samples, but not on fakes
    >>> round((Logistic(0.9).d_loss(high, -high) - Logistic().d_loss(high, -high)).item(), 4)  # (1 - 0.9) * 3
    0.3
    """

    logistic = True

    def __init__(self, real_label: float = 1.0) -> None:
        if not 0 < real_label <= 1:
            raise ValueError(f"real_label={real_label}: must lie in (0, 1].")
        self.real_label = real_label

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self._real_term(real_logits).mean() + softplus(fake_logits).mean()

    def _real_term(self, real_logits: Tensor) -> Tensor:
        if self.real_label == 1:
            return softplus(-real_logits)
        return self.real_label * softplus(-real_logits) + (1 - self.real_label) * softplus(real_logits)


class Minimax(Logistic):
    """The minimax game. Goodfellow et al. 2014, equation 1 and Algorithm 1.

    D minimizes -log D(x) - log(1 - D(G(z))), G minimizes log(1 - D(G(z))), with D = sigmoid(logit), computed
    from the logits. G's gradient vanishes as D(G(z)) -> 0.

    >>> import torch
    >>> chance = torch.zeros(4)  # D at chance level
    >>> round(Minimax().d_loss(chance, chance).item(), 4)  # log 4
    1.3863
    """

    saturates = True

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -softplus(fake_logits).mean()


class NonSaturating(Logistic):
    """The non-saturating game. Goodfellow et al. 2014, section 3.

    D as in `Minimax`; G minimizes -log D(G(z)), whose gradient with respect to the logit tends to -1 as D(G(z)) -> 0.

    >>> import torch
    >>> round(NonSaturating().g_loss(torch.zeros(4)).item(), 4)  # log 2
    0.6931
    """

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return softplus(-fake_logits).mean()


class HalfWeighted(NonSaturating):
    """The game in the authors' code of Goodfellow et al. 2014: the mean, not the sum, of D's two cross-entropies.

    D minimizes 1/2 (-log D(x) - log(1 - D(G(z)))), G minimizes -log D(G(z)). Differs from `NonSaturating` in that
    D's gradient is half as large, which matters for SGD, but for Adam only through its epsilon.

    >>> import torch
    >>> chance = torch.zeros(4)  # D at chance level
    >>> round(HalfWeighted().d_loss(chance, chance).item(), 4)  # log 2
    0.6931
    """

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * super().d_loss(real_logits, fake_logits)


class LeastSquares(Loss):
    """Least-squares GAN. Mao et al. 2017, arXiv:1611.04076.

    D minimizes 1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2, G minimizes 1/2 E (D(G(z)) - c)^2, on raw outputs.
    a, b: D's targets on fake and on real samples; c: G's target on fake samples. With b - c = 1 and b - a = 2, as in
    a=-1 b=1 c=0, G minimizes the Pearson chi-square divergence.

    >>> import torch
    >>> LeastSquares().d_loss(torch.tensor([3.0]), torch.tensor([1.0])).item()  # 1/2 * 2^2 + 1/2 * 1^2
    2.5
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        self.a, self.b, self.c = a, b, c

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * (real_logits - self.b).square().mean() + 0.5 * (fake_logits - self.a).square().mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return 0.5 * (fake_logits - self.c).square().mean()


class Wasserstein(Loss):
    """Wasserstein GAN. Arjovsky et al. 2017, arXiv:1701.07875, Algorithm 1.

    The critic minimizes E f(G(z)) - E f(x), G minimizes -E f(G(z)). A penalty must keep f Lipschitz.

    >>> import torch
    >>> Wasserstein().d_loss(torch.tensor([2.0]), torch.tensor([0.5])).item()
    -1.5
    """

    needs_lipschitz_d = True

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


class Hinge(Loss):
    """The hinge game. Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equations 16 and 17.

    D minimizes E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))), G minimizes -E D(G(z)). G's loss has no hinge, so it has
    a gradient even if D is already fooled.

    >>> import torch
    >>> Hinge().d_loss(torch.tensor([0.5, 7.0]), torch.tensor([-3.0])).item()  # 1/2 (0.5 + 0) + 0
    0.25
    """

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.mean()


class Relativistic(Loss):
    """The relativistic pairing game, RpGAN. Jolicoeur-Martineau 2018, arXiv:1807.00734; R3GAN, arXiv:2501.05441.

    D minimizes -log sigmoid(D(x) - D(G(z))) over pairs of a real and a fake sample, G minimizes the same with the
    two exchanged. Only differences of logits matter: adding a constant to all of them changes nothing.
    Both batches must have the same size; samples at the same position are a pair.

    >>> import torch
    >>> round(Relativistic().d_loss(torch.tensor([5.0]), torch.tensor([5.0])).item(), 4)  # log 2
    0.6931
    """

    g_needs_real = True

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(fake_logits - real_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        assert real_logits is not None, "declared by g_needs_real"
        return self.d_loss(fake_logits, real_logits)


class RelativisticAverage(Relativistic):
    """The relativistic average game, RaSGAN. Jolicoeur-Martineau 2018, arXiv:1807.00734.

    D minimizes -E log sigmoid(D(x) - mean D(G(z))) - E log(1 - sigmoid(D(G(z)) - mean D(x))), G minimizes the same
    with real and fake exchanged. Each sample is compared with the mean of the other kind, not with one sample of it.
    Gradients also pass through the means. Differs from the author's code in using the sum, not the mean, of both terms.

    >>> import torch
    >>> equal = torch.full((4,), 5.0)
    >>> round(RelativisticAverage().d_loss(equal, equal).item(), 4)  # log 4
    1.3863
    """

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real_lead = real_logits - fake_logits.mean()  # (B,)
        fake_lead = fake_logits - real_logits.mean()  # (B,)
        return softplus(-real_lead).mean() + softplus(fake_lead).mean()


class FeatureMatching(FeatureLoss, Logistic):
    """Feature matching. Salimans et al. 2016, arXiv:1606.03498, section 3.1.

    D as in the non-saturating game; G minimizes ||E h(x) - E h(G(z))||^2, where h are D's features, flattened,
    and E is the mean over the batch. The real features are detached. There is no g_loss.
    features: (B, ...), from D.features.

    >>> import torch
    >>> fake, real = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[4.0, 3.0]])
    >>> FeatureMatching().g_feature_loss(fake, real).item()  # means (1, 1) and (4, 3): 3^2 + 2^2
    13.0
    """

    def g_feature_loss(self, fake_features: Tensor, real_features: Tensor) -> Tensor:
        gap = fake_features.flatten(1).mean(0) - real_features.detach().flatten(1).mean(0)  # (F,)
        return gap.square().sum()
