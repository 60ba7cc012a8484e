"""The page of `narrowboat verify --html` and that of evidence in a headless Chromium: on a telephone, in the dark, by keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER, Browser

from narrowboat.conformance import verify_command

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt install chromium chromium-driver"
)

EVIDENCE = Path(__file__).resolve().parents[2] / "docs" / "evidence.html"

#: The contrast of each word that is shown with the ground behind it, by the formula of WCAG 2; those below 4.5.
CONTRAST = """
const parts = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => parts(colour).slice(0, 3).map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (parts(colour)[3] !== 0) return colour;
  }
};
const names = "h1, h2, h3, p, a, b, small, dt, dd, th, td, summary, .chip, .word, .soft, code, pre";
const texts = [...document.querySelectorAll(names)];
return [...new Set(texts.filter(each => each.checkVisibility() && each.textContent.trim()).map(each => {
  const [one, two] = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
  return (one + 0.05) / (two + 0.05) < 4.5 ? `${each.tagName}.${each.className}` : "";
}))].filter(Boolean);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert verify_command("memory://", only=["L01", "L23", "B01", "B45"], html_path=path, out=print) == 0
    return path


@pytest.mark.parametrize("which", ["report", "evidence"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_it_fits_the_screen_and_can_be_read(browser: Browser, report: Path, which: str, scheme: str, width: int) -> None:
    """All open: nothing is beyond the edge, each text stands out from its ground, and the page asks for nothing."""
    browser.open((report if which == "report" else EVIDENCE).as_uri(), width=width, scheme=scheme)
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")

    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(CONTRAST) == []
    assert browser.errors() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0


def test_a_cell_shows_the_command_that_runs_it_again(browser: Browser, report: Path) -> None:
    shown = "return [...document.querySelectorAll('.run')].filter(each => each.checkVisibility()).map(each => each.innerText)"
    browser.open(report.as_uri())
    assert browser.run(shown) == []
    browser.press("a.cell")

    (text,) = browser.run(shown)
    assert "narrowboat verify" in text
    assert "--only L01,L02" in text


def test_the_headings_are_in_order_and_every_id_opens_by_its_summary(browser: Browser, report: Path) -> None:
    """A reader without eyes goes by the headings, and one without a mouse opens a summary, which a key can reach."""
    browser.open(report.as_uri())
    levels = [
        int(level) for level in browser.run("return [...document.querySelectorAll('h1, h2, h3')].map(each => each.tagName[1])")
    ]

    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert browser.run("return document.querySelectorAll('details:not(:has(> summary:first-child))').length") == 0
    browser.run("document.querySelector('#L01').open = true")
    assert "narrowboat verify URL --only L01" in browser.run("return document.querySelector('#L01').innerText")
