"""Looks over the built site: every link inside it leads somewhere, and no page loads anything from elsewhere.

    python docs/check_site.py site

MkDocs checks the links that it makes from Markdown; this also sees those of the theme and of the API reference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Tags whose address a browser fetches by itself. A plain link may lead anywhere; nobody follows it but a reader.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
#: Links of <link> that are told and not fetched.
TOLD = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """One page's anchors, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "__skip"}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag names and where it leads."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found.get("id", ""), found.get("name", "")}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in LOADED and LOADED[tag] in found and not TOLD & set(found.get("rel", "").split()):
            self.loads.append(found[LOADED[tag]])


def faults(site: Path) -> Iterator[str]:
    """A line for each thing that is wrong."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no page is there; build it with mkdocs first"
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links begin at the server's root
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{path.relative_to(site)}: loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                yield f"{path.relative_to(site)}: {link} leads nowhere"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{path.relative_to(site)}: {link} has no such place on that page"


def main(arguments: list[str]) -> int:
    """Print what is wrong; the exit code."""
    found = list(faults(Path(arguments[0]).resolve()))
    print("\n".join(found) or "every link leads somewhere, and nothing is loaded from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
