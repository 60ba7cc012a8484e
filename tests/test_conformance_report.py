"""The report of a run: what its JSON and its page say, and what they must not say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from narrowboat.conformance import report
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.report import markup
from narrowboat.conformance.report.__main__ import main as merge
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.verification import verify_command

ROWS = [
    Row("L01", "sync", Outcome.HELD, "", "takes_and_frees", "C", 0.1, (("wake-up", 0.002, "s"), ("wake-up", 0.004, "s"))),
    Row("L01", "asyncio", Outcome.HELD, "", "takes_and_frees", "C", 0.1),
    Row("L02", "sync", Outcome.BROKEN, "Traceback\nAssertionError: <b>1</b> & 2", "a_try", "C", 0.1),
    Row("L02", "sync", Outcome.HELD, "", "another", "C", 0.1),
    Row("L15", "sync", Outcome.REFUSED, "not claimed: holders", "others_see", "C", 0.0),
    Row("L32", "sync", Outcome.NOT_EXERCISED, "needs a network proxy"),
    Row("B45", "sync", Outcome.NOT_OFFERED, "dead letters have no retention"),
]


@pytest.fixture
def made() -> report.Report:
    return report.make(Harness("memory://"), ROWS, seconds=12.34)


def test_an_id_counts_once_a_face_as_its_worst(made: report.Report) -> None:
    assert made.count() == {"held": 2, "refused": 1, "broken": 1, "not exercised": 1, "not offered": 1}
    assert not made.ok
    assert [(row.id, row.scenario) for row in made.broken] == [("L02", "a_try")]


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        ((Outcome.HELD, Outcome.REFUSED), "held"),
        ((Outcome.HELD, Outcome.NOT_EXERCISED), "not exercised"),
        ((Outcome.NOT_EXERCISED, Outcome.BROKEN), "broken"),
        ((Outcome.BROKEN, Outcome.HELD), "broken"),
    ],
)
def test_what_is_worst(outcomes: tuple[Outcome, ...], worst: str) -> None:
    rows = [Row("L01", "sync", outcome) for outcome in outcomes]
    counts = report.make(Harness("memory://"), rows, seconds=0).count()
    assert {name for name, number in counts.items() if number} == {worst}


def test_the_json_holds_everything_and_comes_back_as_it_was(made: report.Report) -> None:
    data = json.loads(json.dumps(made.as_json()))

    assert data["backend"] == "memory"
    assert data["url"] == "memory://"
    assert data["counts"] == made.count()
    assert data["measured"] == {"wake-up (sync)": {"n": 2, "median": 0.003, "max": 0.004, "unit": "s"}}
    assert {"suite", "narrowboat", "python", "platform"} <= set(data["versions"])
    assert set(data["claims"]) == {"locks", "broker"}
    assert data["claims"]["locks"]["scope"] == "process"
    assert data["rows"][2]["outcome"] == "broken"
    assert report.from_json(data) == made


class Page(HTMLParser):
    """Its text, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_became_of_each_id(made: report.Report) -> None:
    page = Page(markup.page([made]))

    for word in ("fails 1 of 3", "not claimed 1", "not exercised 1", "not offered 1"):
        assert word in page.text
    for row in ROWS:
        assert row.id in page.text
        assert CATALOGUE[row.id].text in page.text
    assert "not claimed: holders" in page.text
    assert "wake-up (sync)" in page.text
    assert "4 ms" in page.text


def test_a_guarantee_of_which_nothing_failed_is_proven() -> None:
    page = Page(markup.page([report.make(Harness("memory://"), ROWS[:2], seconds=0)]))

    assert "proven 2 of 2" in page.text
    assert "fails" not in page.text.partition("Guarantees")[2]


def test_what_a_backend_said_is_shown_and_not_obeyed(made: report.Report) -> None:
    page = markup.page([made])

    assert "&lt;b&gt;1&lt;/b&gt; &amp; 2" in page
    assert "<b>1</b>" not in page


def test_the_page_needs_nothing_from_elsewhere(made: report.Report) -> None:
    page = markup.page([made])

    assert Page(page).loads == []
    assert not re.search(r"@import|url\(", page)


def test_several_runs_become_one_page(made: report.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = report.make(Harness("sqlite:///x.db"), ROWS[:2], seconds=1)
    paths = []
    for number, each in enumerate((made, other)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(each.as_json()))
        paths.append(str(path))

    assert merge(paths) == 0
    text = Page(capsys.readouterr().out).text
    assert "memory" in text
    assert "sqlite" in text
    assert merge([]) == 2


def test_a_secret_in_the_url_is_nowhere(made: report.Report) -> None:
    harness = Harness("memory://")
    harness.url = "memory://user:geheim@host"
    harness.halves = ()  # its claims are not what this is about
    secret = report.make(harness, ROWS, seconds=0)

    assert "geheim" not in json.dumps(secret.as_json())
    assert "geheim" not in markup.page([secret])
    assert "geheim" not in repr(harness)


def test_the_command_writes_both_and_says_in_a_line_what_came_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_path, html_path = tmp_path / "run.json", tmp_path / "run.html"

    code = verify_command("memory://", only=["L01", "B45", "L32"], json_path=json_path, html_path=html_path, out=print)

    assert code == 0
    out = capsys.readouterr().out
    assert "memory://: 2 held, 2 not exercised, 2 not offered in" in out
    data = json.loads(json_path.read_text())
    assert data["counts"]["held"] == 2
    assert {row["id"] for row in data["rows"]} == {"L01", "L32", "B45"}
    assert Page(html_path.read_text()).text.count("L01") >= 2
