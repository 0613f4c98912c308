"""`ganrun figures`: the figures of a run, drawn from the files in its directory."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import config_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from torch.distributions import Normal

from ganrun.commands.figures import open_album
from ganrun.data.mixture import Mixture
from ganrun.data.toy import gaussian, ring
from ganrun.figures.album import Album
from ganrun.figures.animation import ffmpeg, save_mp4
from ganrun.figures.curves import accuracy_figure, loss_figure, metric_figure, repeated_keys, visible_range
from ganrun.figures.density import density_figure, optimum, top_for
from ganrun.figures.grid import save_png
from ganrun.figures.montage import grids_figure, rows_figure
from ganrun.figures.panels import density_panels, plane_panels
from ganrun.figures.plane import best_surface, held_level, plane_figure, true_mass
from ganrun.metric.densities import Cells
from ganrun.protocols import MetricKey
from ganrun.records.frames import Frame, load_all
from ganrun.records.run_dir import RunDir
from ganrun.training.capture import box_of, histogram

Here = Callable[..., tuple[int, str, str]]

HEIGHTS = gaussian(mean=69, std=3, num=1000, unit="inches")
RING = ring(num_modes=8, radius=2, std=0.02, num=1000)
ROUND = ring(num_modes=1, radius=1e-9, std=1, num=1000)  # one Gaussian at 0
SMALL = ["train.batch_size=16", "train.steps=6", "train.frame_every=3", "train.log_every=2", "train.sample_every=0"]


def frame_of(mean: float = 69, std: float = 3, step: int = 0, logistic: bool = True, num: int = 20_000) -> Frame:
    """A frame of a generator with the exact distribution N(mean, std) and a D with logits (x - 69) / 3."""
    edges = torch.linspace(54, 84, 401, dtype=torch.float64)
    counts = (Normal(float(mean), float(std)).cdf(edges).diff() * num).round().int().numpy()
    z = np.linspace(-2.5, 2.5, 201)
    x = np.linspace(54, 84, 401)
    return Frame(
        step=step, logistic=logistic, num=num, z_dim=1, low=np.array([54.0]), high=np.array([84.0]),
        mean=np.array([mean]), std=np.array([std]), logits=(x - 69) / 3, counts=counts, counts_g=np.zeros(0),
        z=z, samples=(mean + std * z)[:, None],
    )  # fmt: skip


def plane_frame(logistic: bool = True) -> Frame:
    """A frame on the ring, of a D with logits x_1, and samples on the first axis."""
    (low, high), x = box_of(RING), np.linspace(-1.5, 1.5, 2500)
    line = np.linspace(low[0], high[0], 64)
    samples = np.stack([x, 0 * x], axis=1)
    return replace(
        frame_of(logistic=logistic, num=2500), low=np.array(low), high=np.array(high), z=x, samples=samples,
        counts=histogram(torch.from_numpy(samples), low, high).numpy(),
        logits=np.repeat(line[:, None], 64, axis=1),
    )  # fmt: skip


def round_frame(at: float, num: int = 10_000) -> Frame:
    """A frame of a generator whose exact distribution is a Gaussian at (at, 0) with the std of the data `ROUND`."""
    low, high = box_of(ROUND)
    of = Mixture(torch.tensor([[at, 0.0]]).double(), torch.tensor([1.0]).double())
    counts = (Cells(low, high, 64).mass(of).view(64, 64) * num).numpy()  # not rounded, to keep the tails
    return replace(plane_frame(), low=np.array(low), high=np.array(high), num=num, counts=counts)


def labels(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.legends[0].get_texts()}


def lines(axes: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}


@pytest.fixture
def finished_run(here: Here, tmp_path: Path) -> Path:
    assert here(*SMALL, "train.pretrain_d=2", "run_dir=r")[0] == 0
    return tmp_path / "r"


def test_optimal_d_is_one_half_for_a_perfect_generator() -> None:
    x, best = optimum(HEIGHTS, frame_of())
    known = np.isfinite(best)
    assert np.allclose(best[known], 0.5, atol=0.02)
    assert 60 < x[known].min() < 64 < 74 < x[known].max() < 78  # outside, both have too few samples


def test_optimal_d_of_two_gaussians_equals_the_formula() -> None:
    """p_data = N(69, 3), p_g = N(72, 3): the logit of D* is log p_data / p_g = (70.5 - x) / 3."""
    x, best = optimum(HEIGHTS, frame_of(mean=72))
    known = np.isfinite(best)
    assert np.allclose(best[known], 1 / (1 + np.exp((x[known] - 70.5) / 3)), atol=0.02)


def test_optimal_d_is_computed_for_g_and_not_g_ema() -> None:
    frame = replace(frame_of(mean=75), counts_g=frame_of(mean=69).counts)
    best = optimum(HEIGHTS, frame)[1]
    assert np.nanmax(np.abs(best - 0.5)) < 0.02


def test_optimal_d_of_two_gaussians_in_two_dimensions_equals_the_formula() -> None:
    """p_data = N((0, 0), I), p_g = N((1, 0), I): the logit of D* is (1 - 2 x_1) / 2, over 1 + the noise variance."""
    frame = round_frame(at=1)
    best = best_surface(ROUND, frame)
    edges = np.linspace(frame.low[0], frame.high[0], 65)
    x, noise = (edges[1:] + edges[:-1]) / 2, 1.5 * (edges[1] - edges[0])
    expected = 1 / (1 + np.exp((x - 0.5) / (1 + noise**2)))[:, None] + 0 * best
    assert np.nanmax(np.abs(best - expected)) < 0.01
    known = np.isfinite(best)
    assert known[30:34, 30:34].all()
    assert not known[:5].any()  # beyond three standard deviations there are too few samples
    assert expected[known].min() < 0.15 < 0.85 < expected[known].max()


def test_optimal_d_in_two_dimensions_is_computed_for_g_and_not_g_ema() -> None:
    frame = replace(round_frame(at=2), counts_g=round_frame(at=0).counts)
    assert np.nanmax(np.abs(best_surface(ROUND, frame) - 0.5)) < 1e-6


def test_optimal_d_in_two_dimensions_from_samples() -> None:
    """With 10,000 samples of the data: one half, up to sampling error."""
    x = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(0))
    low, high = box_of(ROUND)
    best = best_surface(ROUND, replace(round_frame(0), counts=histogram(x, low, high).numpy()))
    assert np.nanmean(np.abs(best - 0.5)) < 0.04
    assert np.nanmax(np.abs(best - 0.5)) < 0.25


def test_density_figure_labels_its_lines_and_units() -> None:
    figure = density_figure(HEIGHTS, frame_of(), "step 0")
    left, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("x (inches)", "density (1 / inches)", "D(x)")
    assert labels(figure) == {"data", "generated", "D(x)", "D(x) = .50", "optimal, D*(x)"}
    assert lines(right)["D(x)"][200] == pytest.approx(0.5)  # at 69
    assert lines(left)["data"].max() == pytest.approx(1 / (3 * np.sqrt(2 * np.pi)), rel=1e-3)
    styles = [line.get_linestyle() for axes in figure.axes for line in axes.get_lines()]
    assert styles.count("-") == 0  # only the generator's steps are solid


def test_density_figure_distinguishes_g_ema_and_g() -> None:
    figure = density_figure(HEIGHTS, replace(frame_of(), counts_g=frame_of(mean=75).counts), "step 0")
    assert {"generated by G_ema", "generated by G"} <= labels(figure)
    assert "generated" not in labels(figure)


def test_figure_of_a_critic_has_no_optimal_d() -> None:
    figure = density_figure(HEIGHTS, frame_of(logistic=False), "step 0")
    assert figure.axes[1].get_ylabel() == "critic f(x)"
    assert labels(figure) == {"data", "generated", "critic f(x)"}
    assert lines(figure.axes[1])["critic f(x)"].max() == pytest.approx(5)


def test_data_of_unknown_density_are_drawn_as_a_histogram() -> None:
    unknown = replace(HEIGHTS, distribution=None)
    figure = density_figure(unknown, frame_of(), "step 0")
    assert lines(figure.axes[0])["data"].max() == pytest.approx(0.133, rel=0.3)
    assert "optimal, D*(x)" not in labels(figure)


def test_note_states_how_many_samples_are_outside_or_cut_off() -> None:
    half_outside = density_figure(HEIGHTS, frame_of(mean=84), "t")
    assert "50% of samples outside" in {text.get_text() for text in half_outside.axes[0].texts}
    narrow = frame_of(std=0.5)
    assert "generated: up to 0.75" in {text.get_text() for text in density_figure(HEIGHTS, narrow, "t").axes[0].texts}
    roomy = density_figure(HEIGHTS, narrow, "t", top_for(HEIGHTS, [narrow], most=9))
    assert not roomy.axes[0].texts
    assert roomy.axes[0].get_ylim()[1] > 0.75


def test_frame_without_inside_samples_or_finite_logits_is_drawn() -> None:
    lost = replace(frame_of(), counts=np.zeros(400, int), logits=np.full(401, np.nan), logistic=False)
    texts = {text.get_text() for text in density_figure(HEIGHTS, lost, "t").axes[0].texts}
    assert texts == {"100% of samples outside"}


def test_panels_share_their_axes_and_map_z_to_x() -> None:
    chosen = [frame_of(std=std, step=step) for step, std in enumerate((0.5, 2, 3))]
    figure = density_panels(HEIGHTS, chosen, ["a", "b", "c"])
    over, below = figure.axes[:3], figure.axes[3:6]
    assert [axes.get_title() for axes in over] == ["a", "b", "c"]
    assert len({axes.get_ylim() for axes in over}) == 1
    assert {axes.get_xlabel() for axes in below} == {"z, mapped to x (inches) above"}
    (arrows,) = below[2].collections
    start, end = arrows.get_offsets()[:, 0], arrows.get_offsets()[:, 0] + arrows.U
    assert np.allclose(end, 69 + 3 * np.linspace(-2.5, 2.5, 25), atol=0.1)
    z = (start - 54) / 30 * 2 * 2.75 - 2.75  # the axis extends a tenth beyond the extremes
    assert np.allclose(z, np.linspace(-2.5, 2.5, 25), atol=0.05)


def test_plane_figure() -> None:
    figure = plane_figure(RING, plane_frame(), "step 0")
    left, middle, right = figure.axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("x₁", "x₂")
    assert [axes.get_title() for axes in figure.axes] == ["samples", "D(x)", "optimal, D*(x)"]
    assert {"D(x) = .50", "99% of the data", "gradient of D(x): the pull on samples", "too few samples"} <= labels(
        figure
    )
    quiver = next(part for part in middle.collections if hasattr(part, "U"))
    assert (quiver.U > 0).all()  # D increases with x_1, so samples are pulled to the right
    assert np.allclose(quiver.V, 0)
    best = right.collections[0].get_array()
    assert best.max() > 0.99  # the upper and lower modes, without samples
    assert best.min() < 0.01  # between the modes, with samples but no data
    assert len(plane_panels(RING, [plane_frame()] * 2, ["a", "b"]).axes) == 6


def test_plane_figure_without_an_optimal_d() -> None:
    """For a critic, data with unknown density, and frames without counts."""
    critic = plane_figure(RING, plane_frame(logistic=False), "t")
    assert labels(critic).isdisjoint({"D(x) = .50", "too few samples"})
    unknown = plane_figure(replace(RING, distribution=None), plane_frame(), "t")
    assert "data" in labels(unknown)
    uncounted = replace(plane_frame(), counts=np.zeros(0))
    for figure in (critic, unknown, plane_figure(RING, uncounted, "t")):
        assert len(figure.axes) == 2
    assert len(plane_panels(RING, [plane_frame(), uncounted], ["a", "b"]).axes) == 4


def test_plane_figure_with_little_content() -> None:
    flat = replace(plane_frame(), logits=np.full((64, 64), 0.1))  # crosses no level, and has no gradient
    assert len(plane_figure(RING, flat, "t").axes) == 3
    assert len(plane_figure(ring(num_modes=3, radius=2, std=1e-6, num=9), plane_frame(), "t").axes) == 3
    lost = replace(plane_frame(), counts=np.zeros((64, 64)), num=10)  # too few samples everywhere
    assert len(plane_figure(RING, lost, "t").axes) == 3
    broken = replace(plane_frame(), logits=np.full((64, 64), np.nan))
    assert "D's outputs are not finite" in {t.get_text() for t in plane_figure(RING, broken, "t").axes[1].texts}


def test_contours_contain_the_stated_share_of_the_data() -> None:
    mass, _, _ = true_mass(RING, plane_frame())
    assert mass.sum() == pytest.approx(1, abs=1e-6)
    for share in (0.5, 0.99):
        assert mass[mass >= held_level(mass, share)].sum() == pytest.approx(share, abs=0.04)


def test_losses_are_drawn_with_those_of_d_at_chance_level() -> None:
    rows = [{"step": step, "loss/d": 1.0 + step, "loss/g": 2.0} for step in (-1, 0, 1, 2)]
    figure = loss_figure(rows, (1.386, 0.693), nats=True)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step (updates of G)", "loss (nats)")
    assert "D's loss for D at chance level, 1.386" in labels(figure)
    assert {text.get_text() for text in axes.texts} == {" D alone"}
    assert lines(axes)["loss of D"].tolist() == [0, 1, 2, 3]
    assert loss_figure(rows, None, nats=False).axes[0].get_ylabel() == "loss"


def test_spike_does_not_flatten_a_long_curve() -> None:
    low, high = visible_range([*np.linspace(0, 1, 1000), 1e6])
    assert (-1 < low < 0, 1 < high < 3) == (True, True)
    assert visible_range([0.0, 10.0]) == (-0.8, 10.8)


def test_accuracy_is_drawn_in_percent_with_chance_level() -> None:
    rows = [{"step": step, "accuracy/real": 0.75, "accuracy/fake": 0.25} for step in (1, 2)]
    (axes,) = accuracy_figure(rows).axes
    assert axes.get_ylabel() == "classified correctly by D (%)"
    assert axes.get_ylim() == (0, 100)
    assert set(lines(axes)["of real examples"]) == {75}
    assert set(lines(axes)["chance level, 50%"]) == {50}


def test_metrics_over_steps_are_drawn_with_the_true_values() -> None:
    rows = [{"step": s, "metric/std_100k": s, "metric/std_true": 3.0, "metric/jsd_9": s} for s in (1, 2)]
    rows += [{"step": 3, "metric/once": 1.0}]
    rows += [{"step": s, "metric/parzen_10k_num_test": 100.0, "metric/parzen_10k_valid": s} for s in (4, 5)]
    keys = {
        "std_100k": MetricKey(unit="data", true="std_true"),
        "jsd_9": MetricKey("lower", unit="nats"),
        "parzen_10k_num_test": MetricKey(about="parzen_10k"),  # a count, which is not drawn
        "parzen_10k_valid": MetricKey("higher", unit="nats", about="parzen_10k"),
    }
    names = repeated_keys(rows, keys)
    assert names == ["metric/std_100k", "metric/jsd_9", "metric/parzen_10k_valid"]
    first, second = metric_figure(rows, names[:2], keys, "inches").axes
    assert (first.get_title(), first.get_ylabel(), second.get_ylabel()) == ("std_100k", "inches", "nats")
    assert [line.get_ydata()[0] for line in first.get_lines()] == [1, 3]
    assert len(second.get_lines()) == 1


def test_metrics_with_undeclared_keys_are_drawn() -> None:
    rows = [{"step": s, "metric/own": s} for s in (1, 2)]
    assert repeated_keys(rows, {}) == ["metric/own"]
    (axes,) = metric_figure(rows, ["metric/own"], {}).axes
    assert (axes.get_title(), axes.get_ylabel(), len(axes.get_lines())) == ("own", "", 1)


@pytest.mark.slow
def test_metrics_are_drawn_with_the_key_properties_recorded_by_the_run(here: Here, tmp_path: Path) -> None:
    line = ["train.metric_every=3", "metric.distribution.num=1000", "train.diagnose=false"]
    assert here(*SMALL, *line, "run_dir=r")[0] == 0
    recorded = open_album(RunDir(tmp_path / "r"))
    assert {"metric/mean_1k", "metric/ks_1k"} <= set(recorded.metric_keys)
    assert "metric/mean_true" not in recorded.metric_keys
    assert recorded.keys["mean_1k"] == MetricKey(unit="data", true="mean_true")
    (tmp_path / "r" / "metric_keys.json").unlink()  # as in an earlier version, so the config is used
    assert open_album(RunDir(tmp_path / "r")).keys == recorded.keys
    shutil.rmtree(tmp_path / "r" / "frames")
    code, out, _ = here("figures", "run_dir=r", "animation=false")
    assert (code, str(Path("r/figures/metrics.png")) in out) == (0, True)


def test_steps_selected_for_panels() -> None:
    def album(*steps: int) -> Album:
        return Album([frame_of(step=step) for step in steps], HEIGHTS, [], [], 100, 5, None)

    moments = album(-5, -2, 0, 20, 40, 60, 100).moments()
    assert {name: frame.step for name, frame in moments.items()} == {
        "start": -5, "pretrained": 0, "middle": 40, "end": 100,
    }  # fmt: skip
    assert {name: frame.step for name, frame in album(0, 100).moments().items()} == {"start": 0, "end": 100}
    assert list(album(0).moments()) == ["start"]
    assert [frame.step for frame in album(-5, 0, 2, 4, 20, 40, 100).panels()] == [0, 4, 20, 100]
    assert [frame.step for frame in album(0, 50, 80, 100).panels()] == [0, 50, 80, 100]
    assert [frame.step for frame in album(-5).panels()] == [-5]


@pytest.mark.slow
def test_figures_of_a_run_on_one_dimensional_data(
    finished_run: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, out, _ = here("figures", "run_dir=r")
    assert code == 0
    stills = {"density_start", "density_pretrained", "density_middle", "density_end", "panels", "losses", "accuracy"}
    assert {path.stem for path in (finished_run / "figures").glob("*.png")} == stills
    for stem in stills:
        assert str(Path("r/figures") / f"{stem}.png") in out
    with Image.open(finished_run / "figures" / "animation.gif") as animation:
        images = [np.asarray(image.convert("RGB")) for image in ImageSequence.Iterator(animation)]
    assert len(images) == len(load_all(finished_run)) == 4  # -2, 0, 3, 6
    assert not np.array_equal(images[0], images[-1])
    for sentence in (
        "metrics are skipped: a curve needs two steps or more",
        "animation.mp4 is skipped: ffmpeg is not on the PATH.",
    ):
        assert sentence in out


def test_mp4_is_made_by_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake ffmpeg that records its arguments and input."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@" > arguments\nfor last; do :; done\ncat > "$last"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert ffmpeg() == str(program)
    images = [np.full((30, 40, 3), shade, np.uint8) for shade in (0, 100, 200)]
    save_mp4(images, Path("a.mp4"), 5, str(program))
    assert "-s 40x30 -r 5" in Path("arguments").read_text()
    still = [images[-1]] * 10  # the last frame is shown for two seconds
    assert Path("a.mp4").read_bytes() == b"".join(image.tobytes() for image in [*images, *still])

    Path("a.mp4").unlink()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no such encoder >&2\nexit 3\n")
    with pytest.raises(OSError, match=r"a.mp4: ffmpeg failed \(no such encoder\)"):
        save_mp4(images, Path("a.mp4"), 5, str(program))
    assert not Path("a.mp4").exists()


@pytest.mark.slow
def test_figures_of_a_run_on_two_dimensional_data(here: Here, tmp_path: Path) -> None:
    nets = ["arch.generator.hidden=[8]", "arch.discriminator.hidden=[8]", "metric=none"]
    assert here("data=ring", "data.num=500", *nets, *SMALL, "train.sample_every=6", "run_dir=r")[0] == 0
    assert (tmp_path / "r" / "samples" / "step_00000006.png").exists()
    assert here("figures", "run_dir=r")[0] == 0
    drawn = {path.name for path in (tmp_path / "r" / "figures").iterdir()}
    assert {"density_start.png", "density_end.png", "panels.png", "losses.png", "animation.gif"} <= drawn


@pytest.mark.slow
def test_figures_of_a_run_on_images_do_not_need_its_data(here: Here, tmp_path: Path) -> None:
    """With data that do not exist: losses, accuracy, and an animation of the sample grids, one of them damaged."""
    run = tmp_path / "r"
    (run / "samples").mkdir(parents=True)
    config = config_of("loss=nonsaturating", "train.steps=9") | {"data": {"_target_": "gone"}}
    (run / "config.yaml").write_text(json.dumps(config))
    rows = [{"step": s, "loss/d": 1.0, "loss/g": 1.0, "accuracy/real": 0.9, "accuracy/fake": 0.6} for s in (3, 6, 9)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, shade in ((0, 0), (3, 90), (6, 160), (9, 250)):
        save_png(np.full((20, 20, 3), shade, np.uint8), run / "samples" / f"step_{step:08d}.png")
    (run / "samples" / "step_00000006.png").write_bytes(b"damaged")
    code, out, _ = here("figures", "run_dir=r", "format=svg")
    assert code == 0
    assert {path.name for path in (run / "figures").glob("*.svg")} == {"losses.svg", "accuracy.svg"}
    assert "<svg" in (run / "figures" / "accuracy.svg").read_text()
    assert "densities and panels are skipped: frames/ is empty" in out
    with Image.open(run / "figures" / "animation.gif") as animation:
        shades = [image.convert("L").getpixel((0, 0)) for image in ImageSequence.Iterator(animation)]
    assert shades == [0, 90, 250]


IMAGES = ["data=digits", "arch.generator.width=8", "arch.discriminator.width=8", "train.steps=4", "train.threads=1",
          "train.sample_every=2", "train.checkpoint_every=2", "train.log_every=0", "train.diagnose=false"]  # fmt: skip


@pytest.mark.slow
def test_figures_of_a_run_on_images_show_its_generator(here: Here, tmp_path: Path) -> None:
    assert here(*IMAGES, "train.ema=0.5", "condition=concat", "run_dir=r")[0] == 0
    code, _, err = here("figures", "run_dir=r")
    assert (code, err) == (0, "")
    drawn = {path.stem for path in (tmp_path / "r" / "figures").iterdir()}
    assert drawn == {"real", "ema", "interpolation", "truncation", "animation"}
    for name in drawn - {"animation"}:
        with Image.open(tmp_path / "r" / "figures" / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 1
    with Image.open(tmp_path / "r" / "figures" / "animation.gif") as animation:
        assert animation.n_frames == 3  # of steps 0, 2 and 4, and not those of G itself
    earlier = (tmp_path / "r" / "figures" / "interpolation.png").read_bytes()
    assert here("figures", "run_dir=r", "checkpoint=2", "animation=false")[0] == 0
    assert (tmp_path / "r" / "figures" / "interpolation.png").read_bytes() != earlier


@pytest.mark.slow
def test_figures_of_samples_that_cannot_be_drawn_are_skipped_in_one_sentence(here: Here, tmp_path: Path) -> None:
    assert here(*IMAGES, "latent=uniform", "run_dir=r")[0] == 0
    config = (tmp_path / "r" / "config.yaml").read_text()
    (tmp_path / "r" / "config.yaml").write_text(config.replace("ganrun.data.digits.digits", "gone.data"))
    code, out, err = here("figures", "run_dir=r", "animation=false")
    assert code == 0
    assert {path.stem for path in (tmp_path / "r" / "figures").iterdir()} == {"interpolation"}
    assert err.startswith("real is skipped, because the data are not available: data._target_=gone.data")
    assert "ema is skipped: the run has no G_ema (train.ema)." in out
    assert "truncation is skipped: it is defined for normal latents, which this run does not have." in out
    code, _, err = here("figures", "run_dir=r", "animation=false", "checkpoint=7")
    assert code == 0
    assert "figures of samples are skipped: r/checkpoints/step_00000007.pt: no such checkpoint" in err


def test_rows_of_images_have_their_labels_beside_them() -> None:
    rows = torch.randint(0, 256, (3, 4, 1, 8, 8), dtype=torch.uint8)
    figure = rows_figure(rows, ["a", "b", "c"], "title", "below")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_yticks().tolist() == [6, 16, 26]  # the middle of images of 8 pixels, 2 apart
    shown = axes.images[0].get_array()
    assert shown.shape == (32, 42, 3)
    assert np.array_equal(shown[12:20, 22:30, 0], rows[1, 2, 0].numpy())
    two = grids_figure([("left", np.zeros((20, 20, 3), np.uint8)), ("right", np.ones((20, 20, 3), np.uint8))], "both")
    assert [axes.get_title() for axes in two.axes] == ["left", "right"]


@pytest.mark.slow
def test_losses_are_drawn_if_the_data_are_not_available(finished_run: Path, here: Here) -> None:
    config = (finished_run / "config.yaml").read_text().replace("ganrun.data.toy.gaussian", "gone.data")
    (finished_run / "config.yaml").write_text(config)
    code, _, err = here("figures", "run_dir=r")
    assert code == 0
    assert "densities and panels are skipped, because the data are not available: data._target_=gone.data" in err
    assert {path.name for path in (finished_run / "figures").iterdir()} == {"losses.png", "accuracy.png"}


@pytest.mark.slow
def test_run_without_anything_to_draw_is_an_error(finished_run: Path, here: Here) -> None:
    for line, message in [
        (["run_dir=nowhere"], "run_dir=nowhere: no run there"),
        (["run_dir=r", "format=gif"], "format=gif: must be one of png, pdf, svg"),
        (["run_dir=r", "fps=0"], "fps=0: must lie between 1 and 50"),
        ([], "run_dir: must be given"),
    ]:
        code, _, err = here("figures", *line)
        assert code == 2
        assert message in err
    for name in ("frames", "samples"):
        shutil.rmtree(finished_run / name, ignore_errors=True)
    (finished_run / "metrics.jsonl").unlink()
    code, _, err = here("figures", "run_dir=r")
    assert code == 2
    assert "run_dir=r: has no records to draw yet." in err
