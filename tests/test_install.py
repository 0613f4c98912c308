"""The wheel, installed in a clean environment and run from an empty folder."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import REPO


def output_of(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_runs_from_an_empty_folder(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip")
    output_of(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, REPO, cwd=REPO)
    (wheel,) = tmp_path.glob("ganrun-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "ganrun/conf/train.yaml" in names
    assert not any(name.startswith(("tests/", "conf/", "outputs/")) for name in names)

    clean, empty = tmp_path / "venv", tmp_path / "empty"
    venv.create(clean, with_pip=False)
    empty.mkdir()
    python = clean / "bin" / "python"
    site = Path(output_of(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=empty).strip())
    output_of(*pip, "install", "--no-deps", "--target", site, wheel, cwd=empty)
    # Use the installed torch, to save a gigabyte; as a plain path, so that the editable ganrun is not used.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = output_of(python, "-c", "import ganrun; print(ganrun.__file__)", cwd=empty).strip()
    assert where == str(site / "ganrun" / "__init__.py")
    output_of(python, "-m", "ganrun", "train.steps=5", "run_dir=r", cwd=empty)
    output_of(python, "-m", "ganrun", "sample", "run_dir=r", "num=3", cwd=empty)
    assert (empty / "r" / "result.json").exists()
    assert (site / "bin" / "ganrun").exists()
