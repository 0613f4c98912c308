"""The page of a report, in headless Chromium: it opens offline, its tables work, and only its own script runs."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import config_of
from sweeps import COLLAPSE, write_run, write_sweep

from ganrun.commands.report import main

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

CLICKS = """
const found = {};
const grid = document.querySelector('[data-table=settings]');
const rows = () => [...grid.querySelectorAll('tbody tr')].filter(r => r.offsetParent);
const names = () => rows().map(r => r.cells[1].textContent);
const head = (title) => [...grid.querySelectorAll('th button')].find(b => b.textContent === title);
const lines = [...document.querySelectorAll('figure [id="line-0"]')];
const line = () => lines.filter(e => getComputedStyle(e).display !== 'none').length;
found.start = names();
head('loss').click(); found.loss = names();
head('loss').click(); found.descending = names();
found.aria = head('loss').parentElement.getAttribute('aria-sort');
head('best').click(); found.best = names();
const input = grid.querySelector('input[type=search]');
input.value = 'HINGE'; input.dispatchEvent(new Event('input')); found.filtered = names();
input.value = ''; input.dispatchEvent(new Event('input'));
found.lines = line();
grid.querySelector('tbody tr .hide').click();
found.hidden = names(); found.linesHidden = line(); found.button = grid.querySelector('.all').textContent;
grid.querySelector('.all').click(); found.again = names(); found.linesAgain = line();
const box = grid.querySelector('.columns input[value="1"]');
box.click(); found.columns = grid.querySelectorAll('th')[1].offsetParent === null;
box.click(); found.columnsAgain = grid.querySelectorAll('th')[1].offsetParent === null;
document.body.dataset.found = JSON.stringify(found);
"""

WIDTHS = """
const { scrollWidth, clientWidth } = document.documentElement;
document.body.dataset.found = JSON.stringify([scrollWidth, clientWidth]);
"""


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def data(self, name: str) -> str:
        """The value of a data attribute of the body."""
        return next(attributes[f"data-{name}"] or "" for tag, attributes in self.found if tag == "body")


def report(*dirs: str, **options: object) -> str:
    assert main(config_of(f"dirs=[{','.join(dirs)}]", "out=o", verb="report") | options) == 0
    return Path("o/report.html").read_text()


def opened(page: str, script: str = "", width: int = 1280) -> str:
    """The document after its scripts have run. script: run after the page's own; its policy is removed for this."""
    if script:
        page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)
        page = page.replace("</body>", f"<script>{script}</script></body>")
    Path("page.html").write_text(page)
    assert CHROMIUM is not None
    line = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--user-data-dir=profile",
        f"--window-size={width},900",
    ]
    return subprocess.run(
        [*line, "--dump-dom", Path("page.html").absolute().as_uri()], capture_output=True, text=True
    ).stdout


def sweep() -> None:
    write_sweep(
        "s", {"loss=minimax": [0.3, 0.31, 0.28], "loss=hinge": [0.1, 0.12, 0.11], "loss=wgan": [0.2, 0.22, 0.21]}
    )


@pytest.mark.slow
def test_page_needs_no_other_file_and_no_network() -> None:
    sweep()
    write_run("s/pictures", "loss=wgan", seed=3, metrics={"ks_100k": 0.2}, picture=True)
    tags = Tags(report("s")).found
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/png;base64,", "#")), (tag, name, target)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    assert [tag for tag, _ in tags].count("img") == 3
    assert [tag for tag, _ in tags].count("script") == 1


@pytest.mark.slow
def test_page_says_what_the_terminal_says() -> None:
    sweep()
    write_run("s/collapsed", "loss=wgan", seed=3, metrics={"ks_100k": 0.2}, findings=[COLLAPSE])
    page = report("s")
    for text in (
        "loss=hinge is better than",
        "Not a controlled comparison",
        "ganrun -m loss=hinge",
        "20% are lost",
        "ganrun x=1",
    ):
        assert text in page, text


@pytest.mark.slow
def test_figures_have_the_text_color_of_the_page_and_no_mathematical_text() -> None:
    write_sweep("s", {"arch.z_dim=1": [0.001, 0.002], "arch.z_dim=2": [0.4, 0.5]})
    write_run("s/dollars", "arch.z_dim=3", metrics={"ks_100k": 0.2})
    page = report("s")
    assert "currentColor" in page
    assert "mathdefault" not in page
    assert "#123457" not in page
    assert "<metadata" not in page


@needs_chromium
@pytest.mark.slow
def test_tables_sort_filter_and_hide() -> None:
    sweep()
    found = json.loads(Tags(opened(report("s"), CLICKS)).data("found"))
    assert found["start"] == ["hinge", "wgan", "minimax"]
    assert found["loss"] == ["hinge", "minimax", "wgan"]
    assert (found["descending"], found["aria"]) == (["wgan", "minimax", "hinge"], "descending")
    assert found["best"] == ["hinge", "wgan", "minimax"]
    assert found["filtered"] == ["hinge"]
    assert (found["hidden"], found["button"]) == (["wgan", "minimax"], "Show 1 hidden")
    assert found["lines"] > 4
    assert (found["linesHidden"], found["linesAgain"]) == (0, found["lines"])
    assert found["again"] == ["hinge", "wgan", "minimax"]
    assert (found["columns"], found["columnsAgain"]) == (True, False)


@needs_chromium
@pytest.mark.slow
def test_page_fits_the_width_of_a_phone() -> None:
    write_sweep("s", {f"loss=minimax arch.generator.hidden=[{','.join(['64'] * n)}]": [0.1 * n, 0.2] for n in (1, 30)})
    content, screen = json.loads(Tags(opened(report("s"), WIDTHS, width=390)).data("found"))
    assert content <= screen <= 500  # some versions of Chromium have no narrower window


@needs_chromium
@pytest.mark.slow
def test_policy_allows_the_own_script_and_no_other() -> None:
    sweep()
    page = report("s")
    assert 'data-ready="true"' in opened(page)
    evil = page.replace(
        "</main>",
        "<img src=x onerror='document.body.dataset.evil=1'><script>document.body.dataset.evil=1</script></main>",
    )
    dom = opened(evil)
    assert 'data-ready="true"' in dom
    assert "data-evil" not in dom
