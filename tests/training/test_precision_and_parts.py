"""train.precision, train.channels_last and train.accumulate, and what a run logs of its memory."""

import copy
import json
import logging
import math
from pathlib import Path

import pytest
import torch
from helpers import assert_same_run, config_of, kill_at, logged, recorded, result_of, run_of, same
from torch import Tensor, nn

from ganrun.config import CONF
from ganrun.penalty.gradient import Dragan
from ganrun.records import checkpoint
from ganrun.training.build import make_loss
from ganrun.training.game import Game
from ganrun.training.precision import make_scaler, scaled, scaled_step
from ganrun.training.randomness import reseed
from ganrun.training.run import Run
from ganrun.training.validate import is_mean

CPU = torch.device("cpu")
SMALL = ["data=digits", "train.threads=1", "arch.generator.width=4", "arch.discriminator.width=4",
         "train.batch_size=8", "train.steps=12", "train.checkpoint_every=4", "train.log_every=1",
         "train.sample_every=0", "train.diagnose=false"]  # fmt: skip
MLP = ["data=digits", "arch=mlp", "arch.generator.hidden=[16]", "arch.discriminator.hidden=[16]",
       "train.batch_size=12", "optimizer=sgd", "optimizer.lr=0.1"]  # fmt: skip


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ganrun"), "propagate", True)
    return caplog


def played(run: Run, steps: int = 3) -> tuple[Run, list[float]]:
    """The run after some steps, and all losses and gradient norms of the last one."""
    game = Game(run)
    for step in range(steps):
        reseed(run.device, run.seed, "step", step)
        d, g = game.step(step)
    values = {**d.scalars(), **g.scalars()}
    return run, [values[tag].item() for tag in sorted(values)]


def close(a: nn.Module, b: nn.Module, atol: float = 1e-6) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x.double(), y.double(), rtol=1e-5, atol=atol) for x, y in pairs)


# Resume bit for bit, with each option


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["train.precision=fp16"],
        ["train.precision=fp16", "train.update=simultaneous", "penalty=r1"],
        ["train.channels_last=false"],
        ["train.channels_last=true", "train.precision=bf16"],
        ["train.accumulate=2", "data.flip=true", "arch.discriminator.spectral_norm=true"],
        ["train.accumulate=4", "train.precision=fp16", "train.update=simultaneous", "penalty=r1", "penalty.r1.every=3"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_killed_run_resumes_bit_for_bit(options: list[str], here, tmp_path: Path) -> None:
    line = [*SMALL, *options]
    assert here(*line, "run_dir=whole")[0] == 0
    kill_at(6, [*line, "run_dir=killed"], tmp_path)
    code, out, err = here("resume", "run_dir=killed")
    assert code == 0, err
    assert "resuming at step 4 of 12" in out
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


# Precision


def test_gradients_of_a_scaled_loss_are_those_of_the_loss() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    scaler = make_scaler("fp16", CPU)
    assert scaler is not None
    step = scaled_step(torch.optim.SGD([w], lr=0.5), [w], scaler)
    (grad,) = step(torch.autograd.grad(scaled((w**2).sum(), scaler), [w]))
    assert grad is not None
    assert grad.tolist() == [2, 4]
    assert w.tolist() == [0, 0]
    assert scaler.get_scale() == 2**16


def test_step_with_an_infinite_gradient_is_skipped_and_the_scale_is_halved() -> None:
    w, bias = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    scaler = make_scaler("fp16", CPU)
    assert scaler is not None
    scaled(w.sum(), scaler)
    step = scaled_step(torch.optim.SGD([w, bias], lr=0.5), [w, bias], scaler)
    step((torch.tensor([math.inf]), torch.tensor([1.0])))
    assert (w.item(), bias.item(), scaler.get_scale()) == (1, 1, 2**15)
    shared = torch.tensor([2.0**15])  # one tensor as the gradient of two parameters is divided once for each
    assert [grad.item() for grad in step((shared, shared)) if grad is not None] == [1, 1]
    assert (w.item(), bias.item()) == (0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_fp16_is_close_to_fp32_and_scales_both_losses(update: str) -> None:
    line = [*MLP, f"train.update={update}", "loss=rpgan", "penalty=r1", "optimizer=sgd", "train.n_critic=1"]
    (full, _), (half, _) = (played(run_of(*line, f"train.precision={name}")) for name in ("fp32", "fp16"))
    assert full.d_scaler is None
    assert {"d_scaler", "g_scaler"} <= half.stateful().keys() - full.stateful().keys()
    for a, b in ((full.D, half.D), (full.G, half.G)):
        assert close(a, b, atol=2e-3)
        assert not close(a, b, atol=1e-8)  # it is not float32 after all


@pytest.mark.slow
def test_fp16_logs_its_scales_and_survives_skipped_steps(here, tmp_path: Path) -> None:
    """Common bug: the infinite gradient norm of a skipped step, which is normal at the start, counts as divergence."""
    (tmp_path / "steep.py").write_text(
        "from ganrun.loss import NonSaturating\n"
        "class Loss(NonSaturating):\n"
        "    calls = 0\n"
        "    def d_loss(self, real, fake):\n"
        "        self.calls += 1\n"
        "        return super().d_loss(real, fake) * (1e36 if self.calls == 4 else 1)\n"  # of two are checks
    )
    line = [*SMALL, "train.precision=fp16", "loss._target_=steep.Loss", "train.steps=6", "metric=none"]
    code, _, err = here(*line, "run_dir=r")
    assert code == 0, err
    rows = logged(tmp_path / "r")
    skipped = [row["step"] for row in rows if "grad_norm/d" not in row]
    assert len(skipped) == 1
    scales = dict(recorded(tmp_path / "r", "scale/d"))
    assert (scales[1], scales[6]) == (2**16, 2**15)
    assert set(dict(recorded(tmp_path / "r", "scale/g")).values()) == {2**16}
    state = checkpoint.load_newest(tmp_path / "r" / "checkpoints")
    assert state is not None
    assert state["d_scaler"]["scale"] == 2**15


@pytest.mark.slow
def test_fp16_ends_as_diverged_if_every_step_overflows(here, tmp_path: Path) -> None:
    (tmp_path / "steeper.py").write_text(
        "from ganrun.loss import NonSaturating\n"
        "class Loss(NonSaturating):\n"
        "    def d_loss(self, real, fake):\n"
        "        return super().d_loss(real, fake) * 1e37\n"
    )
    code, _, err = here(*SMALL, "train.precision=fp16", "loss._target_=steeper.Loss", "train.steps=60", "run_dir=r")
    assert code == 3
    assert "grad_norm/d is too large for train.precision=fp16" in err
    assert result_of(tmp_path / "r")["status"] == "diverged"


def test_tf32_is_a_setting_of_torch_and_has_no_effect_on_the_cpu(messages) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for precision in ("tf32", "fp32"):
            run_of(*MLP, f"train.precision={precision}")
            on = precision == "tf32"
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (on, on)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert messages.text.count("train.precision=tf32 has no effect: this device (cpu) computes in fp32.") == 1


# Memory format


@pytest.mark.parametrize(("choice", "last"), [("null", True), ("true", True), ("false", False)])
def test_networks_and_batches_have_the_chosen_memory_format(choice: str, last: bool) -> None:
    run = run_of("data=digits", "arch.generator.width=4", "arch.discriminator.width=4", f"train.channels_last={choice}")
    weights = [p for net in (run.G, run.D) for p in net.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert weights
    assert {w.is_contiguous(memory_format=torch.channels_last) for w in weights} == {last}
    assert run.batches._format == (torch.channels_last if last else torch.contiguous_format)


def test_memory_format_changes_only_the_rounding() -> None:
    line = ["data=digits", "arch.generator.width=4", "arch.discriminator.width=4", "train.batch_size=8"]
    line += ["optimizer=sgd", "optimizer.lr=0.01"]
    (a, _), (b, _) = (played(run_of(*line, f"train.channels_last={choice}")) for choice in ("true", "false"))
    assert close(a.G, b.G, atol=1e-5)
    assert close(a.D, b.D, atol=1e-5)


FORMAT_LINES = [
    [],
    *(["arch.discriminator.norm=none", f"penalty={name}"] for name in
      ("gradient_penalty", "r1", "r2", "dragan", "[r1,r2]")),
    ["arch.discriminator.norm=none", "penalty=r1", "train.accumulate=2", "arch.generator.width=8"],
    ["arch.discriminator.norm=none", "penalty=r1", "train.update=simultaneous"],
    ["arch.discriminator.norm=none", "penalty=r1", "train.precision=fp16"],
    ["loss=wgan_gp", "train.n_critic=1"],
    ["loss=rpgan", "penalty.r1.every=2"],
]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("line", FORMAT_LINES, ids=" ".join)
def test_training_is_the_same_in_both_memory_formats(line: list[str], optimizer: str) -> None:
    """Also with second derivatives, which torch computes in another format than that of the weights.

    Adam's first steps have the size of the learning rate whatever a gradient is, so that gradients near 0 may differ.
    """
    shared = ["data=digits", "arch.generator.width=4", "arch.discriminator.width=4", "train.batch_size=8", *line,
              f"optimizer={optimizer}", "optimizer.lr=0.01"]  # fmt: skip
    runs = [run_of(*shared, f"train.channels_last={choice}") for choice in ("true", "false")]
    start = copy.deepcopy(runs[0].D)
    nets = [start, *(played(run, steps=2)[0].D for run in runs)]
    for before, a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert (a - b).norm() <= 0.02 * (a - before).norm() + 1e-7


def test_settings_without_effect_warn(messages) -> None:
    run_of("data=heights", "train.channels_last=true", "train.ema=0", "train.metric_raw=always")
    assert "train.channels_last has no effect: these data are not images." in messages.text
    assert "train.metric_raw has no effect without train.ema" in messages.text


# Parts of a batch


@pytest.mark.slow
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("loss", ["nonsaturating", "rpgan", "hinge", "wgan"])
@pytest.mark.parametrize("num", [2, 3, 12])
def test_parts_give_the_update_of_the_whole_batch(num: int, loss: str, update: str) -> None:
    """Common bugs: a sum instead of a mean; an optimizer step after each part; new latents."""
    line = [*MLP, f"loss={loss}", f"train.update={update}", "penalty=r1"]
    line += ["train.n_critic=1", "schedule=constant", "optimizer=sgd", "optimizer.lr=0.1"]
    if update == "alternating":  # in which D has one pass of real and fake, so that both have the same weights
        line.append("arch.discriminator.spectral_norm=true")
    (whole, expected), (parts, found) = (played(run_of(*line, f"train.accumulate={k}")) for k in (1, num))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert close(whole.D, parts.D, atol=1e-5)
    assert close(whole.G, parts.G, atol=1e-5)


def test_parts_need_less_memory_than_the_whole_batch() -> None:
    """The largest input of D's first layer is that of one part of real and fake examples together."""
    sizes: list[int] = []
    run = run_of(*MLP, "train.accumulate=4")
    next(m for m in run.D.modules() if isinstance(m, nn.Linear)).register_forward_pre_hook(
        lambda layer, inputs: sizes.append(len(inputs[0]))
    )
    played(run, steps=1)
    assert set(sizes) == {6, 3}  # in D's and in G's update


def test_lazy_penalty_is_due_for_all_parts_of_a_batch() -> None:
    line = [*MLP, "penalty=r1", "penalty.r1.every=2", "train.update=simultaneous", "loss=nonsaturating"]
    for steps in (1, 2, 3):
        values = [played(run_of(*line, f"train.accumulate={k}"), steps)[1] for k in (1, 3)]
        assert values[1] == pytest.approx(values[0], rel=1e-3, abs=1e-5)


LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))


@pytest.mark.slow
def test_losses_that_are_no_means_are_found() -> None:
    found = [name for name in LOSSES if not is_mean(make_loss(config_of(f"loss={name}")))]
    assert found == ["feature_matching", "ragan"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["loss=ragan"], r"train.accumulate=2: this loss \(RelativisticAverage\) depends on a batch as a whole"),
        (["loss=feature_matching"], r"this loss \(FeatureMatching\)"),
        (["penalty=lecam"], "penalty=lecam"),
        (["penalty=dragan"], "penalty=dragan"),
        (["arch.discriminator.minibatch=stddev"], "the layer MinibatchStdDev of the discriminator"),
        (["arch.discriminator.minibatch=discrimination"], "the layer MinibatchDiscrimination of the discriminator"),
        (["train.batch_size=9"], r"train.accumulate=2: must divide train.batch_size=9"),
    ],
)
def test_parts_are_refused_where_they_change_the_loss(options: list[str], message: str) -> None:
    line = [*MLP, "loss=nonsaturating", "penalty=none", *options, "train.accumulate=2"]
    with pytest.raises(ValueError, match=message):
        run_of(*line)


def test_declared_batch_statistics_are_those_of_the_term() -> None:
    """DRAGAN's noise depends on the standard deviation of the batch."""
    penalty = Dragan()
    x = torch.cat([torch.zeros(4, 2), torch.ones(4, 2)])
    noise = torch.zeros(8, 2)
    torch.manual_seed(0)
    whole = (penalty.points(x, noise) - x).abs().sum()
    parts: Tensor = sum(((penalty.points(part, noise) - part).abs().sum() for part in x.split(4)), torch.zeros(()))
    assert whole > 0
    assert parts == 0


def test_batch_normalization_in_parts_is_said(messages) -> None:
    run_of("data=digits", "arch.generator.width=4", "arch.discriminator.width=4", "train.accumulate=4")
    assert (
        "train.accumulate=4: batch normalization in G uses the statistics of each part of 16 examples, so the "
        "gradients are not those of a batch of 64."  # of 8x8 pixels, D has one layer, without it
    ) in messages.text


# Memory, and metrics of G itself


@pytest.mark.slow
def test_peak_memory_is_logged(here, tmp_path: Path) -> None:
    code, _, err = here(*SMALL, "train.steps=2", "run_dir=r")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    peaks = [row["memory/peak_gib"] for row in rows if "loss/d" in row]
    assert len(peaks) == 2
    assert 0.05 < peaks[0] <= peaks[1]


@pytest.mark.slow
def test_metrics_of_g_itself_are_computed_when_asked_for_and_change_nothing(here, tmp_path: Path) -> None:
    line = ["train.steps=12", "train.metric_every=4", "train.ema=0.9", "train.sample_every=0", "data.num=500",
            "train.log_every=1", "metric.distribution.num=200", "metric=distribution"]  # fmt: skip
    for when in ("always", "end", "never"):
        assert here(*line, f"train.metric_raw={when}", f"run_dir={when}")[0] == 0
    key = next(key for row in logged(tmp_path / "always") for key in row if key.startswith("metric_raw/"))
    steps = {when: [step for step, _ in recorded(tmp_path / when, key)] for when in ("always", "end", "never")}
    assert steps == {"always": [4, 8, 12], "end": [12], "never": []}
    losses = [[(r["step"], r["loss/d"]) for r in logged(tmp_path / w) if "loss/d" in r] for w in ("always", "never")]
    assert losses[0] == losses[1]
    states = [checkpoint.load_newest(tmp_path / when / "checkpoints") for when in ("always", "never")]
    assert all(same(states[0][part], states[1][part]) for part in ("G", "D", "G_ema", "g_optimizer"))
