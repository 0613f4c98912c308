"""The documentation: its code runs, its links have targets, and generated pages are up to date."""

import re
import shlex
from pathlib import Path

import make_options
import pytest
from helpers import REPO, config_of

import ganrun

PAGES = [*sorted(REPO.glob("*.md")), *sorted((REPO / "docs").glob("*.md"))]
LONGEST = 120  # characters in a line of text
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, as on GitHub."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_lines_of_prose_are_short(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "!["))]
    assert not [line for line in prose if len(line) > LONGEST]


@each_page
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_readme_is_short() -> None:
    assert len((REPO / "README.md").read_text().splitlines()) <= 150


def test_options_page_is_up_to_date() -> None:
    assert make_options.OUT.read_text() == make_options.page(), "run `make docs`"


def commands() -> list[tuple[str, str]]:
    """All training commands in the pages, without sweeps and comments: (page, overrides)."""
    found = []
    for page in PAGES:
        for block in blocks(page, ""):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                words = line.partition("#")[0].split()
                is_job = words[:1] == ["ganrun"] and all("=" in word for word in words[1:])
                if is_job and "DIR" not in line and "stepz" not in line and "least_squares" not in line:
                    found.append((page.name, " ".join(words[1:])))
    return sorted(set(found))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_in_docs_compose(page: str, line: str) -> None:
    config_of(*line.split())


@pytest.mark.slow
def test_code_of_the_python_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All code blocks, in one session."""
    names: dict[str, object] = {}
    for block in blocks(REPO / "docs" / "python.md", "python"):
        exec(block, names)
    assert names["values"]["penalty/gradient_penalty"] >= 0  # type: ignore[index]
    assert len(names["losses"]) == 3  # type: ignore[arg-type]


@pytest.mark.slow
def test_components_in_docs_train(here, tmp_path: Path) -> None:
    """The user-defined loss, data, penalty and metric in the README and the pages."""
    files = {
        "my_loss.py": blocks(REPO / "README.md", "python")[0],
        "conf/loss/least_squares.yaml": blocks(REPO / "README.md", "yaml")[0],
        "my_data.py": blocks(REPO / "docs" / "data.md", "python")[0],
        "conf/data/circles.yaml": blocks(REPO / "docs" / "data.md", "yaml")[0],
    }
    code, options = (blocks(REPO / "docs" / "components.md", kind) for kind in ("python", "yaml"))
    files |= {"my_penalty.py": code[0], "conf/penalty/logit_norm.yaml": options[0]}
    files |= {"my_metric.py": code[1], "conf/metric/spread.yaml": options[1]}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    line = ["loss=least_squares", "data=circles", "penalty=[logit_norm,r1]", "metric=spread", "train.metric_every=2"]
    code, out, err = here(*line, "train.keep_best=spread_1k", "train.steps=4", "run_dir=r")
    assert code == 0, err
    assert "best       spread_1k" in out


@pytest.mark.slow
def test_network_written_for_another_library_trains(here, tmp_path: Path) -> None:
    """The last example of components.md, by its YAML file and by its command line."""
    page = REPO / "docs" / "components.md"
    (tmp_path / "my_nets.py").write_text(blocks(page, "python")[-1])
    (tmp_path / "conf" / "arch").mkdir(parents=True)
    (tmp_path / "conf" / "arch" / "theirs.yaml").write_text(blocks(page, "yaml")[-1])
    command = next(re.finditer(r"^ganrun data=digits arch=mlp.*?^```", page.read_text(), re.MULTILINE | re.DOTALL))[0]
    typed = shlex.split(command.removesuffix("```").replace("\\\n", " "))[1:]
    assert "arch.generator._target_=my_nets.G" in typed
    for name, line in (("a", ["data=digits", "arch=theirs"]), ("b", typed)):
        short = ["train.steps=2", "train.threads=1", "train.sample_every=0", "train.diagnose=false", "metric=none"]
        code, _, err = here(*line, *short, f"run_dir={name}")
        assert code == 0, err
    run = ganrun.load("a", device="cpu")
    assert type(run.G).__name__ == "G"
    assert run.sample(3).shape == (3, 1, 8, 8)
    assert not any("Sigmoid" in type(layer).__name__ for layer in run.D.modules())
    assert run.D(run.sample(3)).shape == (3,)
