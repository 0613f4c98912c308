"""Conditioning of both players on labels, as in the papers. Docstrings name bugs of public implementations."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run_of, write_folder
from torch import Tensor, nn

from ganrun.arch import mlp
from ganrun.condition import AuxiliaryClassifier, Condition, ConditionalBatchNorm, ConditionedByBatchNorm, Projection
from ganrun.data.dataset import DataSpec
from ganrun.protocols import DOutput, Metric
from ganrun.training.evaluation import Evaluation
from ganrun.training.game import Game
from ganrun.training.pictures import Pictures
from ganrun.training.randomness import reseed
from ganrun.training.run import Run
from ganrun.training.updates import scalars

CPU = torch.device("cpu")
KINDS = ["concat", "acgan", "projection"]
SMALL = ["data=digits", "arch.generator.width=4", "arch.discriminator.width=4", "train.batch_size=8", "train.threads=1"]
SPEC = DataSpec((2,), classes=("a", "b", "c"))


def conditional(kind: str, *overrides: str) -> Run:
    return run_of(*SMALL, f"condition={kind}", *overrides)


def record_labels(net: nn.Module) -> list[Tensor | None]:
    """A list to which the labels of each call of the network are appended."""
    labels: list[Tensor | None] = []
    net.register_forward_pre_hook(lambda _, arguments: labels.append(arguments[1]))
    return labels


@pytest.mark.slow
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_d_gets_fakes_with_the_labels_they_were_generated_for(update: str) -> None:
    """Common bug: D gets fakes with other labels than G."""
    run = conditional("concat", f"train.update={update}", "arch.discriminator.norm=none")
    game, of_g, of_d = Game(run), record_labels(run.G), record_labels(run.D)
    reseed(CPU, 0, "step")
    game.step(0)
    y = run.batches[0][1]
    assert torch.equal(of_g[0], y)
    first = of_d[:1] if update == "alternating" else of_d[:2]  # real and fake in one pass, or in two
    assert torch.equal(torch.cat([part for part in first if part is not None]), torch.cat([y, y]))
    if update == "alternating":
        assert torch.equal(of_g[1], of_d[1])  # G's update has new labels
        assert not torch.equal(of_g[1], y)


def test_labels_for_g_have_the_frequencies_of_the_data(tmp_path: Path) -> None:
    """Common bug: uniform labels for G on data with other frequencies, by which D can tell fakes."""
    write_folder(tmp_path / "photos", 40)
    for k in range(0, 28, 2):
        (tmp_path / "photos" / "dogs" / f"{k}.png").unlink()  # leaves 6 dogs and 20 cats
    run = run_of("data=folder", f"data.root={tmp_path}/photos", "data.size=16", "data.valid=0", "data.test=0",
                 "condition=concat", "arch=mlp", "train.batch_size=2000")  # fmt: skip
    assert run.dataset.spec.classes == ("cats", "dogs")
    assert Game(run).random_labels().float().mean() == pytest.approx(6 / 26, abs=0.04)


def test_without_a_condition_neither_network_gets_labels() -> None:
    run = run_of(*SMALL)
    game, of_g, of_d = Game(run), record_labels(run.G), record_labels(run.D)
    game.step(0)
    assert {*of_g, *of_d} == {None}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_pass_gives_the_outputs_of_separate_passes(kind: str) -> None:
    run = conditional(kind, "arch.discriminator.norm=none")
    game, (real, y), fake = Game(run), run.batches[0], torch.rand(8, 1, 8, 8)
    assert game.independent
    shared, separate = (game.outputs(real, fake, y, together) for together in (True, False))
    assert all((out.classes is not None) == (kind == "acgan") for out in (*shared, *separate))
    torch.testing.assert_close(shared, separate)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_depend_on_the_label(kind: str) -> None:
    """Common bug: an argument y that no layer uses."""
    run = conditional(kind)
    game = Game(run)
    for step in range(2):  # initially, all classes of conditional batch norm are the same
        game.step(step)
    z, (x, y) = torch.randn(8, 100), run.batches[0]
    run.G.eval(), run.D.eval()
    assert not torch.equal(run.G(z, y), run.G(z, (y + 1) % 10))
    assert torch.equal(run.D(x, y), run.D(x, (y + 1) % 10)) == (kind == "acgan")


class Plain(nn.Module):
    """A D whose features are its input, and whose output is their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.output = Sum()

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x * self.output.one


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, h: Tensor) -> Tensor:
        return h.flatten(1).sum(1, keepdim=True)


def test_projection_by_hand() -> None:
    """D(x, y) = 2 + 1 + <embed(y), x>; feature maps are summed over space. Common bug: their mean."""
    vectors = Projection(Plain(), SPEC)
    with torch.no_grad():
        vectors.embed.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 10.0], [0.0, -1.0]]))
    x = torch.tensor([[2.0, 1.0]]).repeat(3, 1)
    assert vectors(x, torch.tensor([0, 1, 2])).tolist() == [3.0, 15.0, 2.0]
    maps = Projection(Plain(), DataSpec((2, 2, 2), classes=("a", "b", "c")))
    with torch.no_grad():
        maps.embed.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 5.0]]])[None].repeat(2, 1, 1, 1)
    assert maps(x, torch.tensor([1, 2])).tolist() == [15.0 + 10.0, 15.0 + 5.0]


def test_embedding_has_spectral_norm_if_d_has() -> None:
    """Common bug: spectral norm on all layers except the embedding, which is then unbounded."""
    for spectral_norm in (True, False):
        D = mlp.Discriminator(SPEC, hidden=[4], spectral_norm=spectral_norm)
        embed = Projection(D, SPEC).eval().embed
        assert isinstance(embed.weight, Tensor)
        if spectral_norm:
            assert torch.linalg.matrix_norm(embed.weight, 2).item() == pytest.approx(1, abs=0.02)
        assert hasattr(embed, "parametrizations") == spectral_norm


def test_acgan_terms_by_hand() -> None:
    """At chance level: log K for real and for fake in D's loss, log K in G's. Common bugs: halved, or real only."""
    condition, y = Condition("concat", "classifier", weight=2), torch.tensor([0, 2])
    undecided = classified(torch.zeros(2, 3))
    sure = classified(torch.tensor([[50.0, 0, 0], [0, 0, 50.0]]))
    assert condition.d_term(undecided, undecided, y).item() == pytest.approx(2 * 2 * math.log(3))
    assert condition.d_term(sure, undecided, y).item() == pytest.approx(2 * math.log(3))
    assert condition.d_term(undecided, sure, y).item() == pytest.approx(2 * math.log(3))
    assert condition.g_term(undecided, y).item() == pytest.approx(2 * math.log(3))
    opposite = classified(torch.tensor([[-50.0, 0, 0], [0, 0, -50.0]]))
    assert condition.g_term(opposite, y).item() == pytest.approx(2 * (50 + math.log(2)), rel=1e-6)


def classified(classes: Tensor) -> DOutput:
    """D's output with these class logits (B, K)."""
    return DOutput(torch.zeros(len(classes)), classes)


@pytest.mark.parametrize("discriminator", ["concat", "projection"])
def test_without_a_classifier_no_loss_is_added(discriminator: str) -> None:
    condition, y = Condition("concat", discriminator), torch.tensor([0, 2])
    out = DOutput(torch.zeros(2))
    assert condition.d_term(out, out, y) is None
    assert condition.g_term(out, y) is None


@pytest.mark.slow
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("loss", ["nonsaturating", "rpgan", "feature_matching"])
def test_both_players_of_acgan_minimize_the_class_loss(loss: str, update: str) -> None:
    """Both class losses decrease, and are logged. Common bug: G maximizes its class loss, or does not use it."""
    run = conditional("acgan", f"loss={loss}", f"train.update={update}", "penalty=none", "train.n_critic=1",
                      "train.batch_size=32", "optimizer.lr=0.002")  # fmt: skip
    game = Game(run)
    reseed(CPU, 0, "step")
    d, g = game.step(0)
    assert set(scalars(d, g)) >= {"loss/d_class", "loss/g_class"}
    assert g.terms["loss/g_class"].item() == pytest.approx(math.log(10), rel=0.5)
    last = [game.step(step) for step in range(1, 160)][-20:]
    assert sum(d.terms["loss/d_class"] for d, _ in last) / 20 < 0.8 * d.terms["loss/d_class"]
    assert sum(g.terms["loss/g_class"] for _, g in last) / 20 < 0.8 * g.terms["loss/g_class"]


def test_conditional_batch_norm_initially_equals_the_replaced_layer() -> None:
    """It has one mean and one variance for all classes. Common bug: statistics per class, of few samples."""
    plain = nn.BatchNorm2d(3, eps=0.5, momentum=0.3)
    nn.init.normal_(plain.weight), nn.init.normal_(plain.bias)
    layer = ConditionalBatchNorm(plain, num_classes=2)
    x = torch.randn(8, 3, 4, 4)
    layer.y = torch.tensor([0, 1] * 4)
    torch.testing.assert_close(layer(x), plain(x))
    torch.testing.assert_close(layer.norm.running_mean, plain.running_mean)
    layer.eval(), plain.eval()
    torch.testing.assert_close(layer(x), plain(x))
    with torch.no_grad():
        layer.gain.weight[1] *= 3
        layer.bias.weight[1] *= 3
    h = layer(x)
    torch.testing.assert_close(h[0::2], plain(x)[0::2])
    torch.testing.assert_close(h[1::2], 3 * plain(x)[1::2])


def test_d_update_does_not_change_a_conditional_g() -> None:
    run = conditional("projection")
    before = [tensor.clone() for tensor in run.G.state_dict().values()]
    Game(run).d_update(0, noise=0)
    assert all(torch.equal(a, b) for a, b in zip(before, run.G.state_dict().values(), strict=True))


class WithoutLabels(nn.Module):
    """A user-defined network without inputs for labels, and without features."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layer(x).squeeze(1)


def test_networks_that_cannot_take_labels_are_refused() -> None:
    net = WithoutLabels(SPEC)
    with pytest.raises(ValueError, match=r"condition.discriminator=concat: .* no inputs for labels .*; use"):
        Condition("concat", "concat").complete_discriminator(net, SPEC)
    with pytest.raises(ValueError, match=r"condition.generator=concat: .* no inputs for labels .*; use"):
        Condition("concat", "concat").complete_generator(net, SPEC)
    for kind in ("classifier", "projection"):
        with pytest.raises(ValueError, match=r"no method `features` .*; use condition=concat"):
            Condition("concat", kind).complete_discriminator(net, SPEC)
    with pytest.raises(ValueError, match=r"no batch normalization; use condition.generator=concat"):
        ConditionedByBatchNorm(net, 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_data_without_labels_are_refused(kind: str, here, tmp_path: Path) -> None:
    code, _, err = here(f"condition={kind}")
    assert code == 2
    assert "no labels" in err
    assert "condition=none" in err
    assert not (tmp_path / "outputs").exists()


def test_missing_labels_are_reported() -> None:
    for kind in ("concat", "projection"):
        run = conditional(kind)
        with pytest.raises(ValueError, match="was given none"):
            run.G(torch.randn(2, 100))
        with pytest.raises(ValueError, match="was given none"):
            run.D(torch.zeros(2, 1, 8, 8))


TWO_CLASSES = """
import torch
from ganrun.data.dataset import Dataset, DataSpec, Split

def two_classes():
    y = torch.arange(4000) % 2
    x = torch.where(y == 0, -2.0, 2.0)[:, None] + 0.3 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    spec = DataSpec((2,), std=2.0, classes=("left", "right"))
    return Dataset(spec, Split(x, y), Split(x[:10], y[:10]), Split(x[:10], y[:10]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_class_is_learned(kind: str, tmp_path: Path, here) -> None:
    """By the command line, on user-defined data: class 0 is at -2, class 1 at 2. Without labels they would be mixed."""
    (tmp_path / "two_classes.py").write_text(TWO_CLASSES)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "two.yaml").write_text("_target_: two_classes.two_classes\n")
    line = ["data=two", f"condition={kind}", "condition.generator=concat", "arch=mlp", "arch.z_dim=4",
            "arch.generator.hidden=[32]", "arch.discriminator.hidden=[32]", "optimizer.lr=0.003",
            "train.steps=500", "train.sample_every=0", "run_dir=r"]  # fmt: skip
    assert here(*line)[0] == 0
    assert here("sample", "run_dir=r", "num=400", "labels=[left,right]")[0] == 0
    with np.load(next(Path("r/samples").glob("*.npz"))) as found:
        x, y = found["samples"], found["labels"]
    assert y.tolist() == [0, 1] * 200
    assert x[y == 0].mean() == pytest.approx(-2, abs=0.6)
    assert x[y == 1].mean() == pytest.approx(2, abs=0.6)


def test_grid_has_a_row_per_class_and_a_column_per_latent() -> None:
    run = conditional("concat")
    pictures = Pictures(run)
    assert pictures.y.view(10, 10).tolist() == [[k] * 10 for k in range(10)]
    assert torch.equal(pictures.z.view(10, 10, -1)[0], pictures.z.view(10, 10, -1)[7])
    assert pictures.draw("step 0").shape == (102, 102, 3)  # 10 images of 8 pixels, with gaps of 2


def test_labels_for_metrics_have_the_frequencies_of_the_data() -> None:
    class Count(Metric):
        num = 500

        def __call__(self, samples: Tensor, dataset: object, D: object = None) -> dict[str, float]:
            return {"num": len(samples)}

    run = replace(conditional("concat"), metrics={"count": Count()})
    labels = record_labels(run.G)
    assert Evaluation(run).metrics() == {"num": 500}
    assert len(torch.cat(labels).unique()) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[10]", r"labels: 10 is not one of the classes, which are 0, 1"),
        ("[-1]", r"labels: -1 is not one of the classes"),
        ("[]", r"labels=\[\]: name at least one class"),
        ("cat", r"labels: cat is not one of the classes"),
    ],
)
def test_unknown_classes_are_refused(labels: str, message: str, here, tmp_path: Path) -> None:
    line = [*SMALL, "condition=concat", "train.steps=1", "train.sample_every=0", "run_dir=r"]
    assert here(*line)[0] == 0
    code, _, err = here("sample", "run_dir=r", f"labels={labels}")
    assert code == 2
    assert re.search(message, err)


@pytest.mark.slow
def test_labels_for_a_run_without_classes_are_refused(here, tmp_path: Path) -> None:
    assert here(*SMALL, "train.steps=1", "train.sample_every=0", "run_dir=r")[0] == 0
    code, _, err = here("sample", "run_dir=r", "labels=[1]")
    assert code == 2
    assert "train one with condition=concat" in err


@pytest.mark.slow
def test_png_files_of_a_conditional_run_form_a_labeled_folder(here, tmp_path: Path) -> None:
    assert here(*SMALL, "condition=concat", "train.steps=1", "train.sample_every=0", "run_dir=r")[0] == 0
    assert here("sample", "run_dir=r", "labels=[3,7]", "num=5", "format=png", "out=o")[0] == 0
    (folder,) = [path for path in Path("o").iterdir() if path.is_dir()]
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png")) == [
        "3/000000.png", "3/000002.png", "3/000004.png", "7/000001.png", "7/000003.png",
    ]  # fmt: skip
    run = run_of("data=folder", f"data.root={folder}", "data.size=8", "data.channels=1", "data.valid=0", "data.test=0")
    assert run.dataset.spec.classes == ("3", "7")


def test_auxiliary_classifier_gives_logits_classes_and_features_in_one_pass() -> None:
    """D(x) gives the same logits."""
    net = mlp.Discriminator(SPEC, hidden=[4])
    D, x, passes = AuxiliaryClassifier(net, SPEC), torch.randn(5, 2), []
    net.layers[0].register_forward_hook(lambda *_: passes.append(1))
    out = D.outputs(x)
    assert len(passes) == 1
    assert out.classes.shape == (5, 3)
    assert torch.equal(out.features, D.features(x))
    assert torch.equal(out.logits, D(x))
