"""docs/notebook.ipynb runs, and its outputs are those in the file."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import REPO

NOTEBOOK = REPO / "docs" / "notebook.ipynb"
nbformat = pytest.importorskip("nbformat")


def outputs_of(notebook: Any) -> list[dict[str, Any]]:
    """What each code cell printed or returned, as one text, and its number of pictures."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
            pictures = sum("image/png" in output.get("data", {}) for output in cell.outputs)
            found.append({"text": "".join(texts), "pictures": pictures})
    return found


def test_notebook_is_small_and_names_no_folder_of_a_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 100_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", NOTEBOOK.read_text())
    assert sum(output["pictures"] for output in outputs_of(notebook)) == 2
    kinds = [output.output_type for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not {"error"} & {*kinds}
    assert not any(output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the notebook's libraries
def test_notebook_runs_and_its_outputs_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are the same, and numbers close: they depend on the processor."""
    for library in ("ipykernel", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    client = pytest.importorskip("nbclient")
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    notebook = nbformat.read(NOTEBOOK, 4)
    before = outputs_of(notebook)
    where = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).execute()
    number = re.compile(r"\d+\.\d+")
    for old, new in zip(before, outputs_of(notebook), strict=True):
        assert number.sub("", new["text"]) == number.sub("", old["text"])
        assert new["pictures"] == old["pictures"]
        old_numbers, new_numbers = ([float(n) for n in number.findall(each["text"])] for each in (old, new))
        assert new_numbers == pytest.approx(old_numbers, abs=0.01)
    assert (tmp_path / "outputs" / "exported" / "generator.onnx").exists()
