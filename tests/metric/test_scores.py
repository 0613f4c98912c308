"""Known answers of the scores of features, and torch-fidelity's own numbers for the same features."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset as Images
from torch_fidelity import FeatureExtractorBase, calculate_metrics, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from ganrun.data.seeds import generator
from ganrun.metric.scores import (
    Sizes,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)


def normal(*shape: int, name: str = "a", position: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(0, name, position), dtype=torch.float64)


def with_moments(x: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """x (n, d), transformed to have exactly this mean and the covariance root @ root.T."""
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return mean + white @ root.T


# The Frechet distance


def test_frechet_distance_of_two_gaussians_is_the_closed_form() -> None:
    """For covariances that commute: |m - m'|^2 + sum of (s - s')^2 over the axes."""
    rotation = torch.linalg.qr(normal(5, 5, name="rotation")).Q
    one, two = torch.tensor([0.1, 1.0, 2.0, 3.0, 0.5]).double(), torch.tensor([1.0, 1.0, 0.5, 4.0, 0.0001]).double()
    mean = normal(5, name="mean")
    x = with_moments(normal(300, 5), torch.zeros(5).double(), rotation * one)
    y = with_moments(normal(200, 5, name="b"), mean, rotation * two)
    expected = (mean.square().sum() + (one - two).square().sum()).item()
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-6)


def test_frechet_distance_of_general_covariances_is_the_closed_form() -> None:
    """tr (C C')^1/2 by another way: the nuclear norm of the product of the roots."""
    one, two = normal(4, 4, name="one"), normal(4, 4, name="two")
    x = with_moments(normal(300, 4), torch.zeros(4).double(), one)
    y = with_moments(normal(200, 4, name="b"), torch.ones(4).double(), two)
    nuclear = torch.linalg.svdvals(one.T @ two).sum()
    expected = 4 + (one.square().sum() + two.square().sum() - 2 * nuclear).item()
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero() -> None:
    x = normal(2000, 64).relu()
    assert abs(frechet_distance(x, x)) < 1e-3
    assert abs(frechet_distance(x, x[torch.randperm(len(x))])) < 1e-3


@pytest.mark.parametrize("num", [500, 1000, 4000])
def test_floor_of_the_frechet_distance_is_what_the_number_of_images_predicts(num: int) -> None:
    """For two samples of n from N(0, I_d), to first order: 2 d / n of the means, d (d + 1) / 2n of the covariances.

    With C = I + A and C' = I + B, tr(C + C' - 2 (C C')^1/2) is about |A - B|^2 / 4, and E |A|^2 = d (d + 1) / n.
    """
    d = 20
    found = np.mean(
        [frechet_distance(normal(num, d, position=k), normal(num, d, name="b", position=k)) for k in range(8)]
    )
    assert found == pytest.approx((2 * d + d * (d + 1) / 2) / num, rel=0.1)


# KID


def squared_discrepancy(mean: float, dim: int) -> float:
    """MMD^2 of N(0, I) and N(mean e_1, I) with the kernel (x.y / d + 1)^3, in closed form.

    The kernel's features are the moments up to order three: 3 E[x.y] / d + 3 E[(x.y)^2] / d^2 + E[(x.y)^3] / d^3.
    """
    m, d = mean, dim
    both = {  # E (x.y)^k for independent x, y with these means, k = 1, 2, 3
        (0, 0): (0.0, d, 0.0),
        (0, 1): (0.0, d + m**2, 0.0),
        (1, 1): (m**2, (1 + m**2) ** 2 + d - 1, (m**3 + 3 * m) ** 2 + 3 * m**2 * (d - 1)),
    }
    mean_kernel = {key: 1 + 3 * a / d + 3 * b / d**2 + c / d**3 for key, (a, b, c) in both.items()}
    return mean_kernel[0, 0] + mean_kernel[1, 1] - 2 * mean_kernel[0, 1]


@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_kid_is_unbiased_over_200_draws(mean: float) -> None:
    d, sizes = 5, Sizes(kid_subsets=1, kid_size=60)
    shift = torch.tensor([mean, *[0.0] * (d - 1)]).double()
    found = []
    for k in range(200):
        x, y = normal(60, d, position=k), shift + normal(60, d, name="b", position=k)
        found.append(kernel_distance(x, y, sizes)[0])
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(squared_discrepancy(mean, d), abs=3 * error)
    assert error < 0.02
    assert min(found) < squared_discrepancy(mean, d) < max(found)


def test_kid_of_few_images_takes_smaller_subsets() -> None:
    mean, std = kernel_distance(normal(30, 4), normal(20, 4, name="b"), Sizes(kid_subsets=5, kid_size=1000))
    assert np.isfinite([mean, std]).all()


# The Inception score


def test_inception_score_is_the_number_of_classes_that_are_evenly_and_clearly_predicted() -> None:
    logits = 50.0 * torch.eye(4).repeat(5000, 1)
    assert inception_score(logits)[0] == pytest.approx(4, abs=0.01)
    assert inception_score(logits[:, :1].expand(-1, 4) * 0)[0] == pytest.approx(1)
    assert inception_score(logits[torch.zeros(100).long()])[0] == pytest.approx(1)


# Precision, recall, density and coverage


def cluster(at: float, num: int = 200, name: str = "a") -> Tensor:
    return at + 0.1 * normal(num, 3, name=name)


def test_samples_of_half_of_the_modes_have_precision_one_and_recall_one_half() -> None:
    real = torch.cat([cluster(0), cluster(100)])
    fake = real[:200] + 1e-4
    precision, recall = precision_recall(fake, real)
    density, coverage = density_coverage(fake, real)
    assert precision == 1
    assert recall == 0.5
    assert density == pytest.approx(1, abs=0.2)  # a little more, since each sample is in the ball of its own image, too
    assert coverage == 0.5


def test_half_bad_samples_halve_precision_and_density_and_leave_recall() -> None:
    real = cluster(0, 400)
    fake = torch.cat([real[:200] + 1e-4, cluster(1000)])
    precision, recall = precision_recall(fake, real)
    density, coverage = density_coverage(fake, real)
    assert precision == 0.5
    assert recall > 0.9
    assert density == pytest.approx(0.5, abs=0.05)
    assert coverage > 0.9


def test_distant_samples_have_none_of_them() -> None:
    real, fake = cluster(0), cluster(50, name="b")
    assert (*precision_recall(fake, real), *density_coverage(fake, real)) == (0, 0, 0, 0)


def test_an_outlier_raises_precision_but_hardly_density() -> None:
    """The reason for density: the ball of a single real outlier holds samples all around (Naeem et al. 2020)."""
    outlier = torch.full((1, 3), 50.0).double()
    real, fake = torch.cat([cluster(0), outlier]), cluster(30, name="b")
    assert precision_recall(fake, real)[0] == 1
    assert density_coverage(fake, real)[0] <= 0.2
    assert density_coverage(fake, real)[1] == pytest.approx(1 / 201)


def test_density_and_coverage_equal_a_brute_force_count() -> None:
    real, fake = normal(40, 2), 1.2 * normal(30, 2, name="b")
    k, held, covered = 5, 0, 0
    for x in real:
        radius = sorted((x - other).norm().item() for other in real)[k]
        inside = [(x - sample).norm().item() < radius for sample in fake]
        held, covered = held + sum(inside), covered + any(inside)
    assert density_coverage(fake, real) == pytest.approx((held / (k * 30), covered / 40))


# torch-fidelity's own numbers


class Rows(Images):
    """Numbers of rows, encoded as images that torch-fidelity accepts."""

    def __init__(self, start: int, num: int) -> None:
        self.start, self.num = start, num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> Tensor:
        row = self.start + i
        return torch.tensor([row // 256, row % 256, 0], dtype=torch.uint8)[:, None, None]


@pytest.fixture
def extractor() -> Iterator[Tensor]:
    """A feature extractor of torch-fidelity that looks up the rows of the table that it returns."""
    table = (normal(900, 16) @ normal(16, 16, name="mix")).float()
    table[500:] += 0.3

    class Lookup(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: object) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("single", "double")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "double" if metric == "fid" else "single"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            row = 256 * images[:, 0, 0, 0].long() + images[:, 1, 0, 0].long()
            return tuple(table[row].double() if name == "double" else table[row] for name in self.features_list)

    register_feature_extractor("lookup", Lookup)
    yield table
    del FEATURE_EXTRACTORS_REGISTRY["lookup"]


def test_scores_equal_those_of_torch_fidelity_to_the_last_digit(extractor: Tensor) -> None:
    theirs = calculate_metrics(
        input1=Rows(0, 500), input2=Rows(500, 400), feature_extractor="lookup", cuda=False, cache=False, verbose=False,
        fid=True, kid=True, isc=True, prc=True, kid_subset_size=100, kid_subsets=20, save_cpu_ram=True,
    )  # fmt: skip
    fake, real = extractor[:500], extractor[500:]
    assert frechet_distance(fake, real) == theirs["frechet_inception_distance"]
    assert kernel_distance(fake, real, Sizes(kid_subsets=20, kid_size=100)) == (
        theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    )  # fmt: skip
    assert inception_score(fake) == (theirs["inception_score_mean"], theirs["inception_score_std"])
    assert precision_recall(fake, real) == (theirs["precision"], theirs["recall"])
