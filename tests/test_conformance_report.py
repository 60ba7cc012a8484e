"""The report of a run: what its JSON and its page say, and what they must not say."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from narrowboat.conformance import report
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.measured import Measured
from narrowboat.conformance.report import brief
from narrowboat.conformance.report.__main__ import main as merge
from narrowboat.conformance.report.page import Chapter
from narrowboat.conformance.report.page import page as page_of
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.verification import verify_command

WAKE_UPS = (Measured("wake-up", 0.002, "s", 0.5), Measured("wake-up", 0.004, "s", 0.5))
WHY = "Traceback (most recent call last):\n  File\nAssertionError: <b>1</b> & 2"
ROWS = [
    Row("L01", "sync", Outcome.HELD, "", "takes_and_frees", "C", 0.1, WAKE_UPS),
    Row("L01", "asyncio", Outcome.HELD, "", "takes_and_frees", "C", 0.1),
    Row("L02", "sync", Outcome.BROKEN, WHY, "a_try", "C", 0.1),
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
    assert data["measured"] == {"wake-up (sync)": {"n": 2, "median": 0.003, "max": 0.004, "unit": "s", "bound": 0.5}}
    assert {"suite", "narrowboat"} <= set(data["versions"])
    assert set(data["machine"]) == {"processor", "cores", "system", "python"}
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
    page = Page(page_of([made]))

    for word in ("fails 1/2", "1 not claimed", "1 not exercised", "1 not offered", "not run"):
        assert word in page.text
    for row in ROWS:
        assert row.id in page.text
        assert CATALOGUE[row.id].text in page.text
    assert "not claimed: holders" in page.text
    assert "Done instead" not in page.text, "nothing stands for a network that was not there"
    assert "memory, wake-up: 2 times, the longest 4\u00a0ms of 500\u00a0ms" in page_of([made])


def test_a_guarantee_of_which_nothing_failed_is_proven() -> None:
    page = Page(page_of([report.make(Harness("memory://"), ROWS[:2], seconds=0)]))

    assert "proven 1/1" in page.text
    assert "fails 1" not in page.text


def test_what_a_backend_said_is_shown_and_not_obeyed(made: report.Report) -> None:
    page = page_of([made])

    assert "&lt;b&gt;1&lt;/b&gt; &amp; 2" in page
    assert "<b>1</b>" not in page


def test_the_page_needs_nothing_from_elsewhere(made: report.Report) -> None:
    page = page_of([made])

    assert [each for each in Page(page).loads if not each.startswith("#")] == []
    assert "<script" not in page
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
    assert "geheim" not in page_of([secret])
    assert "geheim" not in repr(harness)


def test_the_command_writes_both_and_says_in_a_line_what_came_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_path, html_path = tmp_path / "run.json", tmp_path / "run.html"

    code = verify_command("memory://", only=["L01", "B45", "L32"], json_path=json_path, html_path=html_path, out=print)

    assert code == 0
    out = capsys.readouterr().out
    assert "memory://: 2 held, 4 not offered in" in out
    data = json.loads(json_path.read_text())
    assert data["counts"]["held"] == 2
    assert {row["id"] for row in data["rows"]} == {"L01", "L32", "B45"}
    assert Page(html_path.read_text()).text.count("L01") >= 2


def test_every_link_leads_to_a_place_on_the_page_and_every_id_is_there(made: report.Report) -> None:
    page = page_of([made, report.make(Harness("sqlite:///x.db"), ROWS[:2], seconds=1)])
    places = re.findall(r"\bid='([^']+)'", page)

    assert {link[1:] for link in Page(page).loads} <= set(places)
    assert len(places) == len(set(places))
    assert set(CATALOGUE) <= set(places)


def test_a_cell_leads_to_the_command_that_runs_it_again(made: report.Report) -> None:
    page = page_of([made])
    place = page.partition("id='locks-take-hold-let-go.memory'")[2].partition("</div>")[0]

    assert "href='#locks-take-hold-let-go.memory'" in page
    assert "fails 1/2" in place
    ids = ",".join(entry.id for entry in CATALOGUE.values() if entry.guarantee == CATALOGUE["L01"].guarantee)
    assert f"narrowboat verify &#x27;memory://&#x27; --only {ids}" in place


def test_a_run_of_another_commit_says_so(made: report.Report) -> None:
    """The page is about the commit of its newest run."""
    new = dataclasses.replace(made, commit="bbbbbbbbbb", started="2026-01-02T00:00:00+00:00", set_up="new")
    old = dataclasses.replace(made, commit="aaaaaaaaaa", started="2026-01-01T00:00:00+00:00", set_up="old")
    page = page_of([new, old])

    cells = re.findall(r"<a class='cell [^>]* data-of='(\w+)'.*?</a>", page)
    marked = re.findall(
        r"<a class='cell [^>]* data-of='(\w+)'[^>]*><b>[^<]*</b>(?:<small>[^<]*</small>)*<small>at a{10}<", page
    )
    assert set(cells) == {"new", "old"}
    assert marked == [name for name in cells if name == "old"]
    assert "commit</dt><dd class=''>bbbbbbbbbb" in page


def test_what_was_not_exercised_says_what_was_done_instead() -> None:
    rows = [Row("B69", "sync", Outcome.NOT_EXERCISED, "needs a power loss")]
    text = Page(page_of([report.make(Harness("sqlite:///x.db"), rows, seconds=0)])).text

    assert "needs a power loss. Done instead: processes and the server are killed" in text


def test_chapters_and_other_set_ups_are_on_it(made: report.Report) -> None:
    other = dataclasses.replace(made, set_up="memory_tls")
    page = Page(
        page_of(
            [made], others=[other], chapters=[Chapter("models", "Models", "<p>a lease</p>")], breaks={"L01": ["it forgets"]}
        )
    )

    assert {"a lease", "memory_tls"} <= set(re.findall(r"a lease|memory_tls", page.text))
    assert "Broken on purpose, and noticedit forgets" in page.text


def test_the_brief_form_keeps_what_the_page_shows(made: report.Report) -> None:
    again = brief.read(json.loads(brief.write(made)))

    assert again.count() == made.count()
    assert report.summary(again.rows) == report.summary(made.rows)
    assert [row.why for row in again.broken] == ["AssertionError: <b>1</b> & 2"]
    assert brief.read(made.as_json()) == made
    assert brief.write(again) == brief.write(made), "it is made anew from itself"


def test_the_brief_form_has_no_paths_and_no_addresses(made: report.Report) -> None:
    why = "Traceback (most recent call last):\n  File\nConnectionError: 127.0.0.1:6379 of /srv/me/kit.db, ca=/srv/me/ca.pem"
    row = dataclasses.replace(ROWS[2], why=why)
    text = brief.write(dataclasses.replace(made, rows=(row,), url="redis://127.0.0.1:6379/0?durability=aof&ca=/srv/me/ca.pem"))

    assert "redis://?durability=aof" in text
    assert "ConnectionError" in text
    assert "/srv" not in text
    assert "127.0.0.1" not in text


def test_parts_of_a_run_become_one(made: report.Report) -> None:
    """A tier that one part was not asked for is another part's; parts of an older commit are left out."""
    held = Row("L32", "sync", Outcome.HELD, "", "a_lost_notification", "N", 0.1)
    network = dataclasses.replace(made, rows=(held,), seconds=7.66)
    old = dataclasses.replace(made, rows=(ROWS[2],), commit="old", started="2020-01-01T00:00:00+00:00")
    one = brief.merged([made, network, old])

    assert [row for row in one.rows if row.id == "L32"] == [held]
    assert {row.id for row in one.rows} == {row.id for row in ROWS}
    assert one.seconds == 20.0
    assert brief.merged([old, made]).commit == made.commit
