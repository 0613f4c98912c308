"""ganrun score: anomaly scores of the user's own files."""

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import Here
from helpers import kill_before_renaming, train_in
from PIL import Image

from ganrun.anomaly.scores import METHODS
from ganrun.data.digits import digits

pytestmark = pytest.mark.slow

QUICK = ["search.steps=3", "search.pool=50", "num_valid=100", "num_train=200", "device=cpu"]
SMALL = ["arch.generator.width=8", "arch.discriminator.width=8", "train.diagnose=false", "train.device=cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """heights, 300 steps; digits, 5 steps; conditional digits without the 3, 5 steps."""
    folder = tmp_path_factory.mktemp("runs")
    quiet = ["train.sample_every=0", "train.frame_every=0", "metric=none", "train.diagnose=false"]
    train_in(
        folder,
        ["experiment=heights", "train.steps=300", "data.num=5000", *quiet, "run_dir=heights"],
        ["data=digits", "train.steps=5", *SMALL, "run_dir=digits"],
        ["data=digits", "condition=concat", "data.without=[3]", "train.steps=5", *SMALL, "run_dir=conditional"],
    )
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_outliers_are_on_top_of_a_table(runs: Path, here: Here, tmp_path: Path) -> None:
    heights = [f"{x:.2f}" for x in np.random.default_rng(0).normal(69, 3, 60)]
    heights[10], heights[20] = "93", "tall"
    Path("people.csv").write_text("\n".join(["height", *heights]))
    code, out, err = here("score", f"run_dir={runs}/heights", "input=people.csv", "out=found/people.csv", *QUICK)
    assert (code, err) == (0, "row 21: column height: 'tall' is not a finite number; skipped.\n")
    assert "scored     59, skipped 1; quantiles among 100 valid examples" in out
    rows = rows_of(tmp_path / "found" / "people.csv")
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(59)]
    assert rows[0]["name"] == "row 11"
    assert list(rows[0]) == [
        "rank",
        "name",
        *(f"{m}{end}" for m in (*METHODS, "combined") for end in ("", "_quantile")),
    ]
    combined = [float(row["combined"]) for row in rows]
    assert combined == sorted(combined, reverse=True)
    assert float(rows[0]["mahalanobis_quantile"]) == pytest.approx(100 / 101)
    assert size_of(tmp_path / "found" / "people.png")[0] > 800


def test_images_of_a_folder_and_the_picture(runs: Path, here: Here, tmp_path: Path) -> None:
    Path("photos/in").mkdir(parents=True)
    for i, x in enumerate(digits().test.x[:8, 0].numpy()):
        Image.fromarray(x).resize((20, 20)).save(f"photos/in/{i}.png")
    Image.new("RGB", (9, 9), "white").save("photos/white.jpg")
    Path("photos/notes.txt").write_text("no image")
    settings = ["methods=[mahalanobis,neighbors]", "by=neighbors", "top=4", *QUICK]
    code, out, err = here("score", f"run_dir={runs}/digits", "input=photos", *settings)
    assert code == 0, err
    assert "notes.txt: .txt does not fit data of shape (1, 8, 8)" in err
    path = runs / "digits" / "scores" / "photos_step_00000005.csv"
    assert f"scores     {path}\n" in out
    assert rows_of(path.with_name("photos_step_00000005_skipped.csv"))[0]["name"] == "notes.txt"
    rows = rows_of(path)
    assert rows[0]["name"] == "white.jpg"
    neighbors = [float(row["neighbors"]) for row in rows]
    assert neighbors == sorted(neighbors, reverse=True)
    assert size_of(path.with_suffix(".png"))[0] > 800


def test_a_conditional_run_without_a_class(runs: Path, here: Here) -> None:
    np.save("x.npy", digits().test.x[:5].numpy())
    code, _, err = here("score", f"run_dir={runs}/conditional", "input=x.npy", *QUICK)
    assert code == 0, err
    assert len(rows_of(runs / "conditional" / "scores" / "x_step_00000005.csv")) == 5


def test_the_same_command_writes_the_same_file(runs: Path, here: Here) -> None:
    np.save("y.npy", digits().test.x[:5].numpy())
    line = ["score", f"run_dir={runs}/digits", "input=y.npy", *QUICK]
    assert here(*line, "out=a.csv")[0] == here(*line, "out=b.csv")[0] == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_samples_of_the_run_itself_can_be_scored(runs: Path, here: Here) -> None:
    assert here("sample", f"run_dir={runs}/digits", "num=6", "out=.", "device=cpu")[0] == 0
    assert here("score", f"run_dir={runs}/digits", "input=sample_step_00000005_seed_0.npz", "out=s.csv", *QUICK)[0] == 0
    assert {row["name"] for row in rows_of(Path("s.csv"))} == {
        f"sample_step_00000005_seed_0.npz[{i}]" for i in range(6)
    }


def test_a_run_killed_before_the_end_of_writing_leaves_the_old_file(runs: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", digits().test.x[:3].numpy())
    (tmp_path / "z.csv").write_text("rank,name,old")
    line = ["score", f"run_dir={runs}/digits", "input=z.npy", "out=z.csv", "methods=logit", *QUICK]
    kill_before_renaming("z.csv", line, tmp_path)
    assert (tmp_path / "z.csv").read_text() == "rank,name,old"
    assert not (tmp_path / "z.png").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["input=nowhere"], "input=nowhere: no such file or folder.\n"),
        (["input=x.txt"], "input=x.txt: .txt does not fit data of shape (1, 8, 8); use an image, .npy or .npz.\n"),
        (["input=bad.png"], "input=bad.png: none of its examples can be used, as bad.png: cannot be read as an image"),
        (["input=x.npy", "methods=[logits]"], "methods=[logits]: each must be one of logit, neighbors,"),
        (["input=x.npy", "by=median"], "by=median: must be one of logit, neighbors, mahalanobis, reconstruction, co"),
        (["input=x.npy", "methods=logit", "by=combined"], "by=combined: must be one of logit, or null.\n"),
        (["input=x.npy", "search.steps=-1"], "search.steps=-1: must be at least 0.\n"),
        (["input=x.npy", "search.stepz=1"], "search.stepz=1: no such setting; did you mean search.steps?"),
        (["input=x.npy", "num_valid=1"], "num_valid=1: must be at least 2.\n"),
        (["input=x.npy", "out=x.txt"], "out=x.txt: must end in .csv.\n"),
        (["input=x.npy", "value_range=[1,0]"], "value_range=[1,0]: must be two numbers in ascending order"),
        ([], "input: must be given"),
    ],
)  # fmt: skip
def test_wrong_settings(runs: Path, here: Here, settings: list[str], message: str) -> None:
    np.save("x.npy", np.zeros((2, 8, 8), np.uint8))
    Path("x.txt").write_text("")
    Path("bad.png").write_text("")
    code, _, err = here("score", f"run_dir={runs}/digits", *settings, "device=cpu")
    assert code == 2
    assert err.startswith(message), err


def test_a_run_without_held_out_data(here: Here) -> None:
    np.save("x.npy", np.zeros((2, 8, 8), np.uint8))
    assert here("data=digits", "data.num_valid=0", "train.steps=2", *SMALL, "run_dir=r")[0] == 0
    code, _, err = here("score", "run_dir=r", "input=x.npy", *QUICK)
    assert (code, err.partition(";")[0]) == (2, "split=valid: has 0 examples, and quantiles need two or more")
    assert here("score", "run_dir=r", "input=x.npy", "split=test", "methods=logit", *QUICK)[0] == 0


def test_files_of_others_are_not_replaced_and_own_ones_are(runs: Path, here: Here) -> None:
    table, image = "height\n70\n71\nx\n", Image.new("L", (8, 8), "white")
    Path("folder").mkdir()
    for name in ("people.csv", "other.csv", "folder/a.csv"):
        Path(name).write_text(table)
    image.save("photo.png")
    line = ["score", f"run_dir={runs}/heights", "methods=[logit]", "num_valid=50", "device=cpu"]
    for given, out, reason in (
        ("people.csv", "people.csv", "people.csv: would be in the input"),
        ("people.csv", "./folder/../people.csv", ": would be in the input"),
        ("folder", "folder/scores.csv", "folder/scores.csv: would be in the input"),
        ("people.csv", "other.csv", "other.csv: was not written by ganrun score"),
        ("people.csv", "photo.csv", "photo.png: was not written by ganrun score"),
        ("people.csv", "scores.txt", "must end in .csv"),
    ):
        code, printed, err = here(*line, f"input={given}", f"out={out}")
        assert (code, printed) == (2, "")
        assert reason in err
    assert {Path(name).read_text() for name in ("people.csv", "other.csv", "folder/a.csv")} == {table}
    assert size_of(Path("photo.png")) == (8, 8)
    assert here(*line, "input=people.csv", "out=s.csv")[0] == 0
    assert rows_of(Path("s_skipped.csv")) == [{"name": "row 3", "reason": "column height: 'x' is not a finite number"}]
    Path("people.csv").write_text("height\n70\n")
    assert here(*line, "input=people.csv", "out=s.csv")[0] == 0
    assert len(rows_of(Path("s.csv"))) == 1
    assert not Path("s_skipped.csv").exists()
