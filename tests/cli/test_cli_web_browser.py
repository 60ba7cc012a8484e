"""The page of `narrowboat web` in a headless Chromium: what a person sees and presses, and what hostile texts cannot do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER, Browser
from cli_program import until
from test_cli_web import HOSTILE, TOKEN, Page, die

from narrowboat.locking import Locks
from narrowboat.messaging import Messaging

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt install chromium chromium-driver"
)

#: Turns the direction of what follows, so that a text reads as another one.
TURNED = "invoice\u202egpj.exe"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(url: str, tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "token").write_text(TOKEN)
    page = Page(url, "--interval", "0.2", "--token-file", tmp_path / "token")
    yield page
    page.end()


def seen(browser: Browser, css: str) -> str:
    """The text of the first such element, once it is there."""
    script = f"return document.querySelector({css!r})?.innerText ?? ''"
    return until(lambda: str(browser.run(script)))


def test_hostile_texts_are_text(browser: Browser, page: Page, broker: Messaging, locks: Locks) -> None:
    """In bodies, reasons, keys, headers and names: no script runs, no element is made, and the policy had nothing to refuse."""
    die(broker, "orders", HOSTILE.encode(), b"\xff<b>", reason=HOSTILE, key=TURNED, headers={HOSTILE: HOSTILE})
    with locks.lock(HOSTILE, label=HOSTILE), locks.lock(TURNED):
        browser.open(f"http://{page.address}/")
        until(lambda: HOSTILE in seen(browser, "#locks") and "invoice\\u{202e}gpj.exe" in seen(browser, "#locks"))
    until(lambda: browser.run("return document.querySelector('#queues td button') !== null"))
    browser.press("#queues td button")
    until(lambda: browser.run("return document.querySelectorAll('article').length === 2"))

    letters = seen(browser, "#letters")
    assert letters.count(HOSTILE) == 7  # the body, and twice: the reason, the header's name and its value
    assert letters.count("invoice\\u{202e}gpj.exe") == 2 and "base64 /zxiPg==" in letters
    assert browser.run("return [document.title, document.querySelectorAll('img, b, body script').length]") == ["Narrowboat", 1]
    assert browser.errors() == []


@pytest.mark.parametrize("width", [360, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(
    browser: Browser, page: Page, broker: Messaging, locks: Locks, width: int, scheme: str, tmp_path: Path
) -> None:
    """On a telephone and a desk, light and dark: nothing stands out at the side, and text differs from its ground."""
    die(broker, "a-queue-with-a-long-name." * 6 + "x", b"x" * 300, reason="r" * 300, headers={"h" * 100: "v" * 100})
    with locks.lock("a lock with a long name " * 5, label="b" * 200):
        browser.open(f"http://{page.address}/", width=width, scheme=scheme)
        until(lambda: browser.run("return document.querySelector('#locks td button') !== null"))
        browser.press("#queues td button")
        until(lambda: browser.run("return document.querySelector('article') !== null"))
        browser.screenshot(tmp_path / f"{width}-{scheme}.png")

    wide = browser.run(
        "return [...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert (browser.run("return innerWidth"), wide) == (width, [])
    colours = browser.run(
        "const bright = (text) => text.match(/[0-9.]+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0);"
        "const style = getComputedStyle(document.body); return [bright(style.backgroundColor), bright(style.color)]"
    )
    ground, text = colours
    assert (ground - text > 400) if scheme == "light" else (text - ground > 400)


def test_a_keyboard_and_a_reader_find_everything(browser: Browser, page: Page, broker: Messaging, locks: Locks) -> None:
    """Headings go down one by one, tables stay tables, buttons and fields have names; opening letters moves the focus there."""
    die(broker, "orders", b"1")
    with locks.lock("invoice", ttl=600):
        browser.open(f"http://{page.address}/", width=360)
        until(lambda: browser.run("return document.querySelector('#locks td button') !== null"))
        browser.run("document.querySelector('#queues td button').focus()")
        was = browser.run("return window.at = document.activeElement, document.activeElement.innerText")
        broker.queue("orders").publish(b"2")
        until(lambda: browser.run("return document.querySelector('#queues td:nth-child(2)').textContent") == "1")
        assert (was, browser.run("return document.activeElement === window.at")) == ("1", True)  # a look does not take it away
        browser.press("#queues td button")
        until(lambda: browser.run("return document.querySelector('article') !== null"))
        assert browser.run("return document.activeElement.innerText") == "Dead letters of orders"
        unnamed = (
            "[...document.querySelectorAll('button, input')].filter(e => !(e.ariaLabel || e.innerText || e.labels?.length))"
        )
        assert browser.run(f"return {unnamed}.length") == 0
        levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
        assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert browser.run("return document.querySelectorAll('[role=table] [role=row] [role=cell]').length") > 0
    assert browser.errors() == []


def test_redrive_and_evict_by_hand(browser: Browser, page: Page, broker: Messaging, locks: Locks) -> None:
    """Without the token the page asks for it, and says when it is another one. It is no part of the address."""
    die(broker, "orders", b"1", b"2")
    held = locks.lock("invoice", ttl=600).acquire()
    browser.open(f"http://{page.address}/")
    until(lambda: browser.run("return document.querySelector('#queues td button') !== null"))
    browser.press("#queues td button")
    until(lambda: browser.run("return document.querySelectorAll('article').length === 2"))

    browser.press("article button")
    assert "this needs the token" in seen(browser, "#said")
    for token in ("another-token-than-that", TOKEN):
        browser.type("#token", token)
        browser.press("#access button")
        browser.press("article button")
        until(lambda token=token: ("redriven: 1" if token == TOKEN else "another one") in seen(browser, "#said"))  # type: ignore[misc]
    until(lambda: browser.run("return document.querySelectorAll('article').length === 1"))
    browser.press("#all")
    assert browser.accept() == "Redrive all of these dead letters?"
    until(lambda: broker.queue("orders").depth().dead == 0)
    browser.press("#locks td button")
    assert f"Evict token {held.token} from invoice?" in browser.accept()
    until(lambda: not locks.holders())
    until(lambda: "Nothing is held." in seen(browser, "#locks"))
    assert TOKEN not in browser.run("return location.href + document.documentElement.outerHTML")


def test_a_server_that_is_gone_is_told(browser: Browser, page: Page, broker: Messaging) -> None:
    """And what is shown stays."""
    broker.queue("orders").declare()
    browser.open(f"http://{page.address}/")
    until(lambda: "orders" in seen(browser, "#queues"))
    page.process.kill()
    until(lambda: "narrowboat web does not answer" in seen(browser, "#state"))
    assert "orders" in seen(browser, "#queues") and "old" in seen(browser, "#age")
