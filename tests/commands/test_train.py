"""The output of `ganrun` at the end of a run."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from helpers import curves, logged, recorded, result_of

from ganrun.commands.train import print_metrics
from ganrun.protocols import MetricKey

SHORT = ["train.steps=4", "train.sample_every=0", "train.diagnose=false", "data.num=500", "train.ema=0"]


def printed(
    metrics: Mapping[str, float], keys: Mapping[str, MetricKey], caplog: pytest.LogCaptureFixture
) -> list[list[str]]:
    """The printed line of each metric: its key, its value, and the related values."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "ganrun"):
        print_metrics(metrics, keys)
    return [message.split(maxsplit=2) for message in caplog.messages]


def test_each_metric_is_printed_on_a_line(caplog: pytest.LogCaptureFixture) -> None:
    metrics = {"ks_100k": 0.0123456, "num_test": 10000.0, "kl": float("nan"), "js": float("inf")}
    keys = {"ks_100k": MetricKey("lower"), "num_test": MetricKey()}
    assert printed(metrics, keys, caplog) == [
        ["ks_100k", "0.01235"],
        ["num_test", "10,000"],
        ["kl", "nan"],
        ["js", "inf"],
    ]
    assert printed({}, keys, caplog) == []
    with caplog.at_level(logging.INFO, "ganrun"):
        print_metrics({"ks_100k": 1.0}, {})
    assert caplog.messages == ["  ks_100k                      1"]


def test_true_value_is_printed_next_to_its_metric_only(caplog: pytest.LogCaptureFixture) -> None:
    metrics = {"mean_1k": 68.67, "std_1k": 2.5, "mean_true": 69.0, "std_true": 3.0}
    keys = {"mean_1k": MetricKey(true="mean_true"), "std_1k": MetricKey(true="std_true")}
    assert printed(metrics, keys, caplog) == [["mean_1k", "68.67", "(true: 69)"], ["std_1k", "2.5", "(true: 3)"]]


def test_true_value_is_printed_next_to_each_of_its_metrics(caplog: pytest.LogCaptureFixture) -> None:
    metrics = {"value_1k": -1.3, "value_of_optimal_d_1k": -0.8, "value_true": -1.386}
    keys = {name: MetricKey(true="value_true") for name in ("value_1k", "value_of_optimal_d_1k")}
    assert printed(metrics, keys, caplog) == [
        ["value_1k", "-1.3", "(true: -1.386)"],
        ["value_of_optimal_d_1k", "-0.8", "(true: -1.386)"],
    ]


def test_related_values_are_printed_next_to_their_metric_without_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """In the order of the metrics, the true value last. Keys without the metric's key as a prefix are not shortened."""
    metrics = {"ll_10k_sigma": 0.2, "ll_10k": 225.0, "ll_10k_se": 2.0, "ll_true": 230.0, "width": 7.0}
    keys = {
        "ll_10k": MetricKey("higher", true="ll_true"),
        **{name: MetricKey(about="ll_10k") for name in ("ll_10k_sigma", "ll_10k_se", "width")},
    }
    assert printed(metrics, keys, caplog) == [["ll_10k", "225", "(sigma: 0.2, se: 2, width: 7, true: 230)"]]


def test_related_value_with_its_own_related_values_also_gets_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = {"ll": 225.0, "ll_se": 2.0, "ll_anchor": 240.0, "ll_anchor_se": 3.0}
    keys = {
        "ll": MetricKey("higher"),
        "ll_se": MetricKey(about="ll"),
        "ll_anchor": MetricKey(about="ll"),
        "ll_anchor_se": MetricKey(about="ll_anchor"),
    }
    assert printed(metrics, keys, caplog) == [
        ["ll", "225", "(se: 2, anchor: 240)"],
        ["ll_anchor", "240", "(se: 3)"],
    ]


def test_key_names_alone_do_not_relate_values(caplog: pytest.LogCaptureFixture) -> None:
    """An undeclared value gets its own line, even if its key begins with another key."""
    metrics = {"fid": 3.0, "fid_se": 0.1, "fid_true": 0.0}
    for keys in ({}, {name: MetricKey() for name in metrics}):
        assert printed(metrics, keys, caplog) == [["fid", "3"], ["fid_se", "0.1"], ["fid_true", "0"]]


def test_related_value_without_its_metric_gets_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    """For example if the run directory has declared keys of an earlier evaluation."""
    keys = {
        "fid": MetricKey("lower", true="fid_true"),
        "fid_se": MetricKey(about="fid"),
        "mean": MetricKey(true="mean_true"),
    }
    assert printed({"fid_se": 0.1, "fid_true": 0.0, "mean": 2.0}, keys, caplog) == [
        ["fid_se", "0.1"],
        ["fid_true", "0"],
        ["mean", "2"],
    ]


# Output of a run


def lines(out: str) -> dict[str, str]:
    """The printed metrics of a run, by key, with single spaces."""
    found = (line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  "))
    return {key: " ".join(rest.split()) for key, rest in found}


def test_run_prints_its_metrics_with_the_true_values(here, tmp_path: Path) -> None:
    code, out, _ = here(*SHORT, "metric.distribution.num=1000", "metric.theory.num=1000", "run_dir=r")
    assert code == 0
    metrics, found = result_of(tmp_path / "r")["metrics"], lines(out)
    assert found["mean_1k"] == f"{metrics['mean_1k']:.4g} (true: 69)"
    assert found["std_1k"] == f"{metrics['std_1k']:.4g} (true: 3)"
    assert found["tail_mass_2sigma_1k"].endswith("(true: 0.0455)")
    assert found["value_1k"] == f"{metrics['value_1k']:.4g} (true: -1.386)"
    assert found["value_of_optimal_d_1k"].endswith("(true: -1.386)")
    assert found["w1_1k"] == f"{metrics['w1_1k']:.4g}"
    assert found.keys() == {key for key in metrics if not key.endswith("_true")}
    evaluated = here("evaluate", "run_dir=r")
    assert evaluated[0] == 0
    assert lines(evaluated[1]) == found


def test_user_metric_declares_which_values_are_related(here, tmp_path: Path) -> None:
    (tmp_path / "spread_and_more.py").write_text(
        "from ganrun.protocols import MetricKey\n"
        "class Spread:\n"
        "    num = 100\n"
        "    caveat = 'spread: says nothing of quality.'\n"
        "    def keys(self, spec, logistic):\n"
        "        return {'spread': MetricKey(true='of_data'), 'spread_num': MetricKey(about='spread')}\n"
        "    def __call__(self, samples, dataset):\n"
        "        return {'spread': 2, 'spread_num': len(samples), 'of_data': dataset.spec.std, 'other': 1.5}\n"
    )
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    (tmp_path / "conf" / "metric" / "spread.yaml").write_text("spread: {_target_: spread_and_more.Spread}\n")
    code, out, _ = here(*SHORT, "metric=spread", "run_dir=r")
    assert code == 0
    assert lines(out) == {"spread": "2 (num: 100, true: 3)", "other": "1.5"}
    assert "spread: says nothing of quality." in out.splitlines()
    assert recorded(tmp_path / "r", "metric/other") == [(4, 1.5)]


@pytest.mark.slow
def test_run_stopped_early_prints_its_best_value(here, tmp_path: Path) -> None:
    (tmp_path / "ever_worse.py").write_text(
        "from ganrun.protocols import MetricKey\n"
        "class Worse:\n"
        "    num, value = 1, 0\n"
        "    def keys(self, spec, logistic): return {'error': MetricKey('lower')}\n"
        "    def __call__(self, samples, dataset):\n"
        "        self.value += 1\n"
        "        return {'error': self.value / 4}\n"
    )
    (tmp_path / "conf" / "metric").mkdir(parents=True)
    (tmp_path / "conf" / "metric" / "worse.yaml").write_text("worse: {_target_: ever_worse.Worse}\n")
    line = [*SHORT, "metric=worse", "train.metric_every=1", "train.keep_best=error", "run_dir=r"]
    code, out, _ = here(*line, "train.patience=2")
    assert code == 0
    assert "finished: 3 steps in" in out
    assert "best       error 0.25 at step 1: checkpoint=best; no improvement after that, so it stopped early\n" in out
    assert lines(out) == {"error": "0.75"}
    code, out, _ = here(*line[:-1], "run_dir=to_the_end")
    assert "best       error 0.25 at step 1: checkpoint=best\n" in out


# G_ema and G

FEW = ["metric=distribution", "metric.distribution.num=1000"]


@pytest.mark.slow
def test_end_of_a_run_has_the_metrics_of_g_ema_and_of_g(here, tmp_path: Path) -> None:
    code, out, _ = here(*SHORT, *FEW, "train.ema=0.5", "optimizer.lr=0.1", "run_dir=r")
    assert code == 0
    result = result_of(tmp_path / "r")
    metrics, raw = result["metrics"], result["metrics_raw"]
    assert metrics.keys() == raw.keys()
    assert metrics["ks_1k"] != raw["ks_1k"]
    assert recorded(tmp_path / "r", "metric/ks_1k") == [(4, metrics["ks_1k"])]
    assert recorded(tmp_path / "r", "metric_raw/ks_1k") == [(4, raw["ks_1k"])]
    assert curves(tmp_path / "r")["metric_raw/ks_1k"] == [(4, pytest.approx(raw["ks_1k"]))]
    assert lines(out)["ks_1k"] == f"{metrics['ks_1k']:.4g} (without EMA: {raw['ks_1k']:.4g})"
    assert lines(out)["mean_1k"] == f"{metrics['mean_1k']:.4g} (true: 69, without EMA: {raw['mean_1k']:.4g})"
    assert here("evaluate", "run_dir=r", "ema=false")[0] == 0
    assert result_of(tmp_path / "r")["evaluations"][0]["metrics"] == raw


def test_run_without_ema_has_its_metrics_once(here, tmp_path: Path) -> None:
    assert here(*SHORT, *FEW, "run_dir=r")[0] == 0
    assert "metrics_raw" not in result_of(tmp_path / "r")
    assert recorded(tmp_path / "r", "metric_raw/ks_1k") == []


@pytest.mark.slow
def test_run_resumed_at_its_last_step_has_the_metrics_of_both_once(here, tmp_path: Path) -> None:
    assert here(*SHORT, *FEW, "train.ema=0.5", "run_dir=r")[0] == 0
    before = logged(tmp_path / "r"), curves(tmp_path / "r"), result_of(tmp_path / "r")["metrics_raw"]
    (tmp_path / "r" / "result.json").unlink()
    assert here("resume", "run_dir=r")[0] == 0
    assert (logged(tmp_path / "r"), curves(tmp_path / "r"), result_of(tmp_path / "r")["metrics_raw"]) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        (["train.ema=0.999"], "train.ema=0.999: G_ema averages G over most of the 20 steps, and so lags behind it"),
        (["train.ema=0.999", "train.ema_debias=false"], "after 20 steps, 98% of G_ema are still the initial weights"),
        (["train.ema=0.999", "train.ema_rampup=0.05"], ""),
        (["train.ema=0.5"], ""),
        (["train.ema=0"], ""),
    ],
)
def test_average_that_cannot_settle_gets_a_warning(settings: list[str], warning: str, here) -> None:
    code, out, err = here(*SHORT, "metric=none", "train.steps=20", *settings)
    assert (code, err) == (0, "")
    assert warning in out
    assert out.count("\nwarning ") == bool(warning)
