"""Penalties against closed forms, finite differences, and the theory of the Dirac-GAN."""

import cmath
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ganrun.loss import NonSaturating
from ganrun.penalty import (
    R1,
    R2,
    Consistency,
    Dragan,
    GradientPenalty,
    LeCam,
    Orthogonal,
    Penalty,
    WeightClip,
    ZeroCentered,
    lazy_rates,
)
from ganrun.penalty.consistency import translate

SHAPES = [(3,), (2, 5, 4)]  # a vector, an image
GRADIENT_PENALTIES = [GradientPenalty, ZeroCentered, R1, R2, Dragan]
ALL = [*GRADIENT_PENALTIES, Consistency, Orthogonal]


class Linear(nn.Module):
    """D(x) = w . x, on samples of any shape. Keeps what it was shown."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.seen.append(x.detach())
        return (x * self.w).flatten(1).sum(1)


class Quadratic(nn.Module):
    """D(x) = |x|^2 / 2, whose gradient is x: shows where a penalty looks."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x.square().flatten(1).sum(1) / 2


class Net(nn.Module):
    """A smooth D in float64 for vectors (B, 3) or images (B, 2, 5, 4)."""

    def __init__(self, shape: tuple[int, ...], *extra: nn.Module) -> None:
        super().__init__()
        first: nn.Module = nn.Linear(shape[0], 4) if len(shape) == 1 else nn.Conv2d(shape[0], 4, 3)
        numel = 4 if len(shape) == 1 else 4 * 3 * 2
        self.layers = nn.Sequential(first, *extra, nn.Tanh(), nn.Flatten(), nn.Linear(numel, 1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x).squeeze(1)


class Mixer(nn.Module):
    """Stands for minibatch discrimination and its like."""

    mixes_samples = True

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0)


def batches(shape: tuple[int, ...], n: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, *shape, dtype=dtype), torch.randn(n, *shape, dtype=dtype) + 1


def vector_of_length(length: float, shape: tuple[int, ...]) -> Tensor:
    w = torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).view(shape)
    return w * (length / w.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (GradientPenalty(weight=10), lambda n: 10 * (n - 1) ** 2),
        (GradientPenalty(weight=7, target=2), lambda n: 7 * (n - 2) ** 2),
        (GradientPenalty(weight=10, one_sided=True), lambda n: 10 * max(0, n - 1) ** 2),
        (Dragan(weight=4), lambda n: 4 * (n - 1) ** 2),
        (ZeroCentered(weight=6), lambda n: 6 * n**2),
        (R1(gamma=10), lambda n: 5 * n**2),
        (R2(gamma=3), lambda n: 1.5 * n**2),
    ],
)
def test_closed_form_on_a_linear_d(
    penalty: Penalty, expected: Callable[[float], float], length: float, shape: tuple[int, ...]
) -> None:
    """The norm runs over all dimensions but the batch. Public mistake: dim=1, which on images is a norm per pixel."""
    term = penalty.term(Linear(vector_of_length(length, shape)), *batches(shape), None)
    assert term is not None
    assert term.shape == ()
    assert term.item() == pytest.approx(expected(length), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_over_samples_is_outside_the_square(shape: tuple[int, ...]) -> None:
    """D(x) = |x|^2 / 2, so each sample has a norm of its own. Public mistake: one norm over the whole batch."""
    real, fake = batches(shape)
    length = real.flatten(1).norm(dim=1)
    assert R1(gamma=2).term(Quadratic(), real, fake, None).item() == pytest.approx(length.square().mean().item())
    assert R2(gamma=2).term(Quadratic(), real, fake, None).item() == pytest.approx(
        fake.flatten(1).square().sum(1).mean().item()
    )
    for one_sided, excess in ((False, length - 1), (True, (length - 1).clamp(min=0))):
        penalty = GradientPenalty(weight=3, one_sided=one_sided)
        term = penalty.term(Quadratic(), real, real, None)  # the interpolates of x and x are x
        assert term.item() == pytest.approx(3 * excess.square().mean().item())
    assert ZeroCentered(weight=3).term(Quadratic(), real, real, None).item() == pytest.approx(
        3 * length.square().mean().item()
    )


@pytest.mark.parametrize("penalty", [GradientPenalty(), ZeroCentered()])
@pytest.mark.parametrize("shape", SHAPES)
def test_interpolates_have_an_epsilon_for_each_sample(penalty: Penalty, shape: tuple[int, ...]) -> None:
    """Public mistakes: one epsilon for the whole batch; one for each element, which leaves the line."""
    D = Linear(torch.ones(shape))
    penalty.term(D, torch.ones(400, *shape), torch.zeros(400, *shape), None)
    epsilon = D.seen[0].flatten(1)  # (400, numel)
    assert (epsilon == epsilon[:, :1]).all()
    assert len(epsilon[:, 0].unique()) > 390
    assert epsilon.min() >= 0
    assert epsilon.max() <= 1
    assert epsilon[:, 0].mean().item() == pytest.approx(0.5, abs=0.06)
    assert epsilon[:, 0].std().item() == pytest.approx(12**-0.5, abs=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_dragan_looks_around_the_data_and_not_at_the_fakes(shape: tuple[int, ...]) -> None:
    """Public mistake: DRAGAN on the line between real and fake, which is WGAN-GP again."""
    real, _ = batches(shape, n=400)
    D = Linear(torch.ones(shape, dtype=torch.float64))
    Dragan(spread=0.5).term(D, real, torch.full_like(real, torch.nan), None)
    share = (D.seen[0] - real) / (0.5 * real.std(correction=0))  # alpha * U
    assert share.min() >= 0
    assert share.max() <= 1
    assert share.mean().item() == pytest.approx(0.25, abs=0.02)
    assert share.flatten(1).std(1).min() > 0  # noise in each element, not one step for the sample
    assert share.max() > 0.9


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Consistency])
def test_gradients_agree_with_finite_differences(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """With respect to D's parameters. Public mistake: no create_graph, so the penalty is logged but trains nothing."""
    real, fake = batches(shape)
    net = Net(shape).double()
    names = [name for name, _ in net.named_parameters()]
    penalty = make(fake_weight=3.0, flip=True) if make is Consistency else make()

    def term(*values: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same interpolates each time
        D = lambda x, y: functional_call(net, dict(zip(names, values, strict=True)), (x, y))  # noqa: E731
        return penalty.term(D, real, fake, None)

    assert torch.autograd.gradcheck(term, tuple(p.detach().requires_grad_() for p in net.parameters()))
    gradients = torch.autograd.grad(term(*net.parameters()), list(net.parameters()), allow_unused=True)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", GRADIENT_PENALTIES)
def test_a_zero_gradient_leaves_everything_finite(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """Public mistake: the slope of the root at 0 is infinite, and times 0 it is NaN in every parameter."""
    real, fake = batches(shape, dtype=torch.float32)
    for D in (Net(shape), Linear(torch.zeros(shape))):
        with torch.no_grad():
            for p in D.parameters():
                p.zero_()
        term = make().term(D, real, fake, None)
        gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True, create_graph=True)
        assert term.isfinite()
        assert all(g.isfinite().all() for g in gradients if g is not None)
        expected = 10 if make in (GradientPenalty, Dragan) else 0  # (0 - 1)^2, and 0^2
        assert term.item() == pytest.approx(expected, abs=1e-4)
    second = torch.autograd.grad(sum(g.sum() for g in gradients if g is not None), list(D.parameters()))
    assert all(g.isfinite().all() for g in second)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", ALL)
def test_autocast_does_not_reach_the_term(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """Public mistake: a gradient norm in half precision, which is off by percents and overflows."""
    real, fake = batches(shape, dtype=torch.float32)
    D, penalty = Net(shape), make()
    real, fake = real.bfloat16(), fake.bfloat16()
    torch.manual_seed(1)
    plain = penalty.term(D, real.float(), fake.float(), None)
    with torch.autocast("cpu", torch.bfloat16):
        D(real)  # fills autocast's cache of bf16 weights
        torch.manual_seed(1)
        cast = penalty.term(D, real.float(), fake.float(), None)
        from_bf16 = penalty.term(D, real, fake, None)
    assert cast.dtype == from_bf16.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert penalty.term(D.double(), real.double(), fake.double(), None).dtype == torch.float64


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", ALL)
def test_batch_of_one(make: type[Penalty], shape: tuple[int, ...]) -> None:
    """Public mistake: the deviation of one sample with n - 1 below the line is NaN."""
    D = Net(shape)
    term = make().term(D, *batches(shape, n=1, dtype=torch.float32), None)
    gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True)
    assert term.isfinite()
    assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("make", ALL)
def test_terms_leave_data_and_gradients_alone(make: type[Penalty]) -> None:
    """Public mistake: requires_grad_() on the batch itself, which then grows a graph through later steps."""
    real, fake = batches((3,), dtype=torch.float32)
    copies, D = (real.clone(), fake.clone()), Net((3,))
    make().term(D, real, fake, None).backward()
    assert torch.equal(real, copies[0])
    assert torch.equal(fake, copies[1])
    assert not real.requires_grad
    assert not fake.requires_grad
    assert real.grad is None


@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Consistency])
def test_labels_reach_d(make: type[Penalty]) -> None:
    """Public mistake: a conditional D is penalized without its labels."""
    real, fake = batches((3,))
    labels = torch.arange(5)
    seen = []

    def D(x: Tensor, y: Tensor | None) -> Tensor:
        seen.append(y)
        return x.sum(1) * y

    make().term(D, real, fake, labels)
    assert seen
    assert all(y is labels for y in seen)


def norms() -> list[nn.Module]:
    return [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.BatchNorm2d(4, track_running_stats=False)]


@pytest.mark.parametrize("make", GRADIENT_PENALTIES)
def test_batch_norm_in_d_is_refused(make: type[Penalty]) -> None:
    """Public mistake: WGAN-GP on a DCGAN discriminator, whose batch norm makes a sample's gradient everyone's."""
    name = {GradientPenalty: "gradient_penalty", ZeroCentered: "zero_centered", Dragan: "dragan", R1: "r1", R2: "r2"}
    for layer in norms():
        with pytest.raises(
            ValueError, match=f"^penalty={name[make]}: D has batch normalization, which ties .*norm=none"
        ):
            make().check(Net((2, 5, 4), layer))
    for layer in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Identity()):
        make().check(Net((2, 5, 4), layer))


def test_layers_that_mix_samples_are_refused_but_for_r1_and_r2() -> None:
    D = Net((2, 5, 4), Mixer())
    for penalty in (GradientPenalty(), ZeroCentered(), Dragan()):
        with pytest.raises(ValueError, match="D has a layer Mixer, which ties the samples"):
            penalty.check(D)
    for other in (R1(), R2()):  # StyleGAN2 has R1 and minibatch standard deviation
        other.check(D)
    for anything in (WeightClip(), Consistency(), LeCam(), Orthogonal()):
        anything.check(Net((2, 5, 4), Mixer(), nn.BatchNorm2d(4)))


def test_why_r1_refuses_batch_norm() -> None:
    """Behind batch norm and a linear layer the sum of a batch's logits is constant: the penalty would be 0."""
    D = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    real, fake = batches((3,))
    assert R1().term(lambda x, y: D(x), real, fake, None).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("fake_weight", [0.0, 5.0])
def test_consistency_is_zero_where_nothing_changes(fake_weight: float) -> None:
    for shape in SHAPES:
        real, fake = batches(shape)
        constant = Net(shape).double()
        with torch.no_grad():
            constant.layers[0].weight.zero_()
        term = Consistency(fake_weight=fake_weight, flip=True).term(constant, real, fake, None)
        assert term.item() == pytest.approx(0, abs=1e-20)
        still = Consistency(fake_weight=fake_weight, translation=0, noise=0)
        assert still.term(Net(shape).double(), real, fake, None).item() == pytest.approx(0, abs=1e-20)
        moving = Consistency(fake_weight=fake_weight, translation=2, noise=0.1)
        assert moving.term(Net(shape).double(), real, fake, None).item() > 1e-4


def test_consistency_by_hand() -> None:
    """D(x) = w . x and T(x) = x mirrored: the mean of (w . (x - Tx))^2 over the batch, weighed for real and fake."""
    real, fake = batches((1, 1, 2))
    D = Linear(torch.tensor([[[1.0, 3.0]]], dtype=torch.float64))
    penalty = Consistency(weight=2, fake_weight=5, translation=0, flip=True)
    torch.manual_seed(3)
    term = penalty.term(D, real, fake, None)
    expected = 0.0
    for k, (weight, x) in enumerate(((2, real), (5, fake))):
        difference = (D.seen[2 * k] - D.seen[2 * k + 1])[:, 0, 0]  # (B, 2)
        expected += weight * (difference @ torch.tensor([1.0, 3.0], dtype=torch.float64)).square().mean().item()
        assert torch.equal(D.seen[2 * k], x)
    assert term.item() == pytest.approx(expected)
    assert term.item() > 0


def test_images_are_moved_each_by_its_own_whole_pixels() -> None:
    """Public mistakes: one shift for the whole batch; a wrapped border; digits mirrored by default."""
    x = torch.arange(1.0, 401.0).repeat(300, 1).view(300, 1, 20, 20)
    torch.manual_seed(0)
    moved = Consistency(translation=4).transform(x)
    found = set()
    for image in moved:
        row, column = divmod(int(image[0, 10, 10]) - 1, 20)
        dy, dx = 10 - row, 10 - column
        found.add((dy, dx))
        expected = torch.zeros(1, 20, 20)
        ys, xs = slice(max(dy, 0), 20 + min(dy, 0)), slice(max(dx, 0), 20 + min(dx, 0))
        expected[:, ys, xs] = x[0, :, max(-dy, 0) : 20 + min(-dy, 0), max(-dx, 0) : 20 + min(-dx, 0)]
        assert torch.equal(image, expected)
    assert len(found) > 70  # of 81
    assert {dy for dy, _ in found} == {dx for _, dx in found} == set(range(-4, 5))
    filled = translate(x[:1], torch.tensor([[4, 0]]), most=4, fill=-1)
    assert (filled[0, 0, :4] == -1).all()


def test_mirroring_is_asked_for_and_drawn_for_each_image() -> None:
    """Public mistake: horizontal flips of digits."""
    x = torch.arange(6.0).view(1, 1, 2, 3).repeat(200, 1, 1, 1)
    assert torch.equal(Consistency(translation=0).transform(x), x)
    mirrored = (Consistency(translation=0, flip=True).transform(x) == x.flip(3)).flatten(1).all(1)
    assert 70 < mirrored.sum() < 130


def test_noise_on_vectors_is_a_share_of_each_component() -> None:
    x = torch.randn(4000, 2) * torch.tensor([1.0, 100.0]) + 5
    noise = Consistency(noise=0.1).transform(x) - x
    assert noise.std(0).tolist() == pytest.approx([0.1, 10.0], rel=0.1)


def test_lecam_anchors_by_hand() -> None:
    """Public mistakes: the anchors swapped; gradients through them; started at 0; lost on resume."""
    penalty = LeCam(weight=0.5, decay=0.9)
    real, fake = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([-1.0, 1.0], requires_grad=True)
    first = penalty.logits_term(real, fake)  # anchors 2 and 0
    assert first.item() == pytest.approx(0.5 * ((1 + 9) / 2 + (9 + 1) / 2))
    gradients = torch.autograd.grad(first, (real, fake))
    assert gradients[0].tolist() == pytest.approx([0.5, 1.5])  # 0.5 * 2 (D - a_F) / 2: the anchor is a constant
    assert gradients[1].tolist() == pytest.approx([-1.5, -0.5])
    second = penalty.logits_term(torch.tensor([-4.0, 6.0]), torch.tensor([5.0, 3.0]))  # anchors 1.9 and 0.4
    assert penalty.real_anchor.item() == pytest.approx(0.9 * 2 + 0.1 * 1)
    assert penalty.fake_anchor.item() == pytest.approx(0.9 * 0 + 0.1 * 4)
    assert second.item() == pytest.approx(0.5 * (5.6**2 / 2))  # real logits below a_F, fakes above a_R: no cost
    assert not penalty.real_anchor.requires_grad


def test_lecam_as_the_paper_writes_it() -> None:
    penalty = LeCam(weight=1, clipped=False)
    term = penalty.logits_term(torch.tensor([-1.0, -3.0]), torch.tensor([4.0]))
    assert term.item() == pytest.approx((25 + 49) / 2 + (4 + 2) ** 2)


def test_lecam_resumes() -> None:
    penalty, resumed = LeCam(), LeCam()
    penalty.logits_term(torch.randn(4), torch.randn(4))
    state = penalty.state_dict()
    assert set(state) == {"real_anchor", "fake_anchor", "started"}
    resumed.load_state_dict(state)
    logits = torch.randn(4), torch.randn(4)
    assert torch.equal(penalty.logits_term(*logits), resumed.logits_term(*logits))
    assert all(torch.equal(a, b) for a, b in zip(penalty.buffers(), resumed.buffers(), strict=True))


def test_lecam_has_no_term_and_projects_nothing() -> None:
    D, real = Net((3,)), torch.zeros(2, 3)
    before = [p.clone() for p in D.parameters()]
    penalty = LeCam()
    assert penalty.term(D, real, real, None) is None
    penalty.project(D)
    assert all(torch.equal(a, b) for a, b in zip(before, D.parameters(), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert penalty.logits_term(torch.ones(2).bfloat16(), torch.ones(2).bfloat16()).dtype == torch.float32


X = torch.zeros(1, 2)


def test_orthogonal_rows_cost_nothing_whatever_their_length() -> None:
    D = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 4, 2), nn.ConvTranspose2d(4, 3, 2))
    with torch.no_grad():
        nn.init.orthogonal_(D[0].weight)
        nn.init.orthogonal_(D[1].weight).mul_(3)
        rows = torch.linalg.qr(torch.randn(16, 3)).Q.T  # (out, in * kernel)
        D[2].weight.copy_(rows.view(3, 4, 2, 2).transpose(0, 1))
    assert Orthogonal(weight=1).term(D, X, X, None).item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        D[0].weight[0] = D[0].weight[1]
    assert Orthogonal(weight=1).term(D, X, X, None).item() == pytest.approx(2, rel=1e-5)


def test_orthogonal_by_hand() -> None:
    """Rows are output units. Public mistakes: columns; the identity subtracted too, which fixes the lengths."""
    D = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Embedding(4, 3), nn.LayerNorm(3))
    W = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]])  # the rows' product is 1
    with torch.no_grad():
        D[0].weight.copy_(W)
    term = Orthogonal(weight=0.25).term(D, X, X, None)
    assert term.item() == pytest.approx(0.25 * (1 + 1))
    gradients = torch.autograd.grad(term, list(D.parameters()), allow_unused=True)
    gram = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert torch.allclose(gradients[0], 0.25 * 4 * gram @ W)
    assert all(g is None for g in gradients[1:])


def test_orthogonal_with_groups_and_spectral_norm() -> None:
    """Public mistake: reading a spectrally normalized weight runs a power iteration more."""
    x = torch.randn(1, 4, 1)
    for grouped in (nn.ConvTranspose1d(4, 6, 1, groups=2), nn.Conv1d(4, 6, 1, groups=2)):
        W = torch.autograd.functional.jacobian(lambda v, f=grouped: f(v)[0, :, 0], x)[:, 0, :, 0]  # (6, 4)
        gram = W @ W.T
        expected = (gram - gram.diag().diag()).square().sum().item()
        assert Orthogonal(weight=1).term(grouped, X, X, None).item() == pytest.approx(expected)
    plain = nn.Linear(3, 2)
    expected = Orthogonal(weight=1).term(plain, X, X, None).item()
    normed = nn.utils.parametrizations.spectral_norm(plain)
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    assert Orthogonal(weight=1).term(normed, X, X, None).item() == pytest.approx(expected)
    assert all(torch.equal(before[name], value) for name, value in normed.state_dict().items())


def test_lazy_rates() -> None:
    """StyleGAN2's own numbers: lr .002, betas (0, .99), every 16. Public mistake: the rates are left as they are."""
    lr, betas = lazy_rates(0.002, (0.0, 0.99), 16)
    assert lr == pytest.approx(0.002 * 16 / 17)
    assert betas == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert lazy_rates(0.1, None, 4) == (pytest.approx(0.08), None)
    assert lazy_rates(0.1, (0.5, 0.9), 1) == (0.1, (0.5, 0.9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lazy_rates(0.1, None, 0), "every=0: must be at least 1"),
        (lambda: R1(every=0), "every=0: must be at least 1"),
        (lambda: GradientPenalty(every=-2), "every=-2: must be at least 1"),
        (lambda: Orthogonal(weight=-1), "weight=-1: must be at least 0"),
        (lambda: R2(gamma=-1), "gamma=-1: must be at least 0"),
        (lambda: GradientPenalty(weight=math.nan), "weight=nan: must be at least 0"),
        (lambda: Consistency(translation=-1), "translation=-1: must be at least 0"),
        (lambda: LeCam(decay=1), "decay=1: must lie in"),
        (lambda: WeightClip(bound=0), "bound=0: must be greater than 0"),
    ],
)
def test_settings_that_cannot_work(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [*GRADIENT_PENALTIES, Orthogonal])
def test_weight_zero_computes_nothing(make: type[Penalty]) -> None:
    def D(x: Tensor, y: Tensor | None) -> Tensor:
        raise AssertionError("D was called")

    penalty = make(gamma=0) if make in (R1, R2) else make(weight=0)
    assert penalty.term(D, X, X, None) is None
    assert Consistency(weight=0).term(D, X, X, None) is None


# The Dirac-GAN of Mescheder et al. 2018, Section 2: the data is a point at 0, G gives theta, and D(x) = psi * x.
# The logistic loss f(t) = -log(1 + e^-t) has f'(0) = 1/2. At (theta, psi) = 0 the gradient field's Jacobian is
# [[0, -1/2], [1/2, -gamma]], with the eigenvalues -gamma/2 +- sqrt(gamma^2/4 - 1/4).


def play_dirac(gamma: float, lr: float, steps: int) -> list[float]:
    """Simultaneous gradient descent from (0.01, 0.01). Returns log(distance from 0) before each step."""
    D = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    theta = torch.full((1, 1), 0.01, dtype=torch.float64, requires_grad=True)
    nn.init.constant_(D.weight, 0.01)
    loss, penalty, real = NonSaturating(), R1(gamma), torch.zeros(1, 1, dtype=torch.float64)
    judge = lambda x, y: D(x).squeeze(1)  # noqa: E731
    path = []
    for _ in range(steps):
        path.append(math.log(math.hypot(theta.item(), D.weight.item())))
        fake_logits = judge(theta, None)
        d_loss = loss.d_loss(judge(real, None), fake_logits)
        if (term := penalty.term(judge, real, theta.detach(), None)) is not None:
            d_loss = d_loss + term
        (d_psi,) = torch.autograd.grad(d_loss, D.weight, retain_graph=True)
        (d_theta,) = torch.autograd.grad(loss.g_loss(fake_logits), theta)
        with torch.no_grad():
            D.weight -= lr * d_psi
            theta -= lr * d_theta
    return path


def test_dirac_gan_orbits_without_a_penalty() -> None:
    """The distance from the solution never shrinks; the step size makes it grow, by lr^2 f'(0)^2 / 2 a step."""
    path = play_dirac(gamma=0, lr=0.05, steps=600)
    assert all(later >= earlier for earlier, later in pairwise(path))
    assert (path[-1] - path[0]) / 599 == pytest.approx(0.05**2 / 8, rel=0.01)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_dirac_gan_converges_with_r1_at_the_rate_of_the_theory(gamma: float) -> None:
    """gamma .5 spirals in at gamma/2; 2 creeps in along the slow eigenvector. Public mistake: gamma for gamma/2."""
    root = cmath.sqrt(gamma**2 / 4 - 1 / 4)
    slow = max((-gamma / 2 + root).real, (-gamma / 2 - root).real)
    lr = 0.02
    half_turn = round(math.pi / root.imag / lr) if root.imag else 500  # the distance breathes within a half turn
    start = half_turn if root.imag else 500  # after the fast eigenvector has died out
    path = play_dirac(gamma, lr, steps=start + 3 * half_turn + 1)
    rate = (path[-1] - path[start]) / (3 * half_turn * lr)
    assert rate == pytest.approx(slow, rel=0.05)
