"""Draws a short history over time, as an SVG that stands alone: a line for each user, what was held, and what went wrong.

For people who look at a broken rule. It is made of the events alone and judges nothing.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from narrowboat.conformance.histories.journal import Event, begun
from narrowboat.conformance.histories.verdict import Finding

#: Sizes in pixels: of the whole, of the users' names, of a line, of what stands above the lines.
WIDTH, NAMES, LINE, TOP = 960, 130, 26, 76
#: Letters of a label.
SHORT = 26

_STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; } text { fill: #1c2430; } .small { font-size: 10px; }
.fault { fill: #c77700; fill-opacity: .16; } .axis { stroke: #9aa7b8; } .wait { stroke: #5b6675; stroke-width: 2; }
.hold { fill: #1f6fb2; } .doubt { fill: #1f6fb2; fill-opacity: .35; } .publish { fill: #17683a; } .deliver { fill: #7a3fa0; }
.settle { fill: #a51d24; }
@media (prefers-color-scheme: dark) {
svg { background: #151a21; } text { fill: #e4e9f0; } .fault { fill: #ffb454; fill-opacity: .2; } .axis { stroke: #5b6675; }
.wait { stroke: #9aa7b8; } .hold, .doubt { fill: #6db3f2; } .publish { fill: #5fcf8d; } .deliver { fill: #c79af0; }
.settle { fill: #ff8088; } }
"""
_LEGEND = (
    ("wait", "asked and not answered"),
    ("hold", "held"),
    ("publish", "publish"),
    ("deliver", "delivery"),
    ("settle", "settlement"),
    ("fault", "fault"),
)


def picture(events: Sequence[Event], finding: Finding) -> str:
    """The SVG of `events`, with the finding as its title."""
    users = list(dict.fromkeys(event["user"] for event in events if event["user"]))
    shown = [event for event in events if event["user"]] or list(events)
    first = min(map(begun, shown), default=0.0)
    last = max((float(event["at"]) for event in shown), default=1.0)
    scale = Scale(first, max(last, first + 0.001))
    height = TOP + LINE * (len(users) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{html.escape(finding.rule)}: broken</title>',
        f'<desc id="desc">{html.escape(finding.text)}</desc><style>{_STYLE}</style>',
        f'<text x="8" y="18">{html.escape(finding.rule)}: {html.escape(finding.text[:130])}</text>',
        *_legend(),
        *_faults(events, scale, height),
    ]
    for number, user in enumerate(users):
        y = TOP + LINE * number
        parts.append(f'<text x="8" y="{y + 15}">{html.escape(user[:18])}</text>')
        parts += _line([event for event in events if event["user"] == user], scale, y)
    parts += _axis(scale, height)
    return "\n".join(parts) + "\n</svg>\n"


class Scale:
    """Times as places on the page."""

    def __init__(self, begun: float, ended: float) -> None:
        self.begun = begun
        self.ended = ended

    def __call__(self, at: float) -> float:
        """The x of a time. What is outside stands at the edge."""
        share = (min(max(at, self.begun), self.ended) - self.begun) / (self.ended - self.begun)
        return round(NAMES + share * (WIDTH - NAMES - 16), 1)


def _legend() -> list[str]:
    parts = []
    for number, (kind, words) in enumerate(_LEGEND):
        x = 8 + number * 155
        if kind == "wait":
            parts.append(f'<line class="wait" x1="{x}" x2="{x + 14}" y1="36" y2="36"/>')
        else:
            parts.append(f'<rect class="{kind}" x="{x}" y="30" width="14" height="12"/>')
        parts.append(f'<text class="small" x="{x + 19}" y="40">{words}</text>')
    return parts


def _faults(events: Iterable[Event], scale: Scale, height: int) -> list[str]:
    parts = []
    for number, event in enumerate(event for event in events if event["what"] == "fault"):
        x, width = scale(event["since"]), max(2.0, scale(event["at"]) - scale(event["since"]))
        words = html.escape(f"{event['kind']} {event['process']}".strip())
        parts.append(f'<rect class="fault" x="{x}" y="48" width="{width:.1f}" height="{height - 48 - LINE}"/>')
        parts.append(f'<text class="small" x="{x}" y="{58 + 10 * (number % 2)}">{words}</text>')
    return parts


def _line(events: Sequence[Event], scale: Scale, y: int) -> list[str]:
    parts: list[str] = []
    asked: dict[str, Event] = {}
    granted: dict[str, Event] = {}
    seen: dict[str, float] = {}  # until when it was held, as far as the holder knows
    for event in events:
        call = event.get("call", "")
        what = event["what"]
        if what == "asks":
            asked[call] = event
        elif what in ("granted", "refused") and call in asked:
            since, at = scale(asked[call]["at"]), scale(event["at"])
            parts.append(f'<line class="wait" x1="{since}" x2="{at}" y1="{y + 11}" y2="{y + 11}"/>')
            if what == "granted":
                granted[call] = event
        elif what in ("holds", "released") and call in granted:
            seen[call] = event["at"]
        elif what in ("published", "delivered", "settled"):
            kind = {"published": "publish", "delivered": "deliver", "settled": "settle"}[what]
            words = f"{event.get('how', kind)} {(event['ids'] or event.get('doubt') or event.get('unknown') or ['?'])[0]}"
            parts += _bar(kind, scale(event["since"]), scale(event["at"]), y, words)
    for call, event in granted.items():
        words = f"{event['token']}"
        parts += _bar("hold", scale(event["at"]), scale(seen.get(call, float(event["at"]))), y, words)
    return parts


def _bar(kind: str, since: float, at: float, y: int, words: str) -> list[str]:
    label = html.escape(words[:SHORT])
    place = f'x="{since}" y="{y + 5}" width="{max(2.0, at - since):.1f}" height="12"'
    return [
        f'<rect class="{kind}" {place}><title>{label}</title></rect>',
        f'<text class="small" x="{since}" y="{y + 25}">{label}</text>',
    ]


def _axis(scale: Scale, height: int) -> list[str]:
    y = height - LINE
    parts = [f'<line class="axis" x1="{NAMES}" x2="{WIDTH - 16}" y1="{y}" y2="{y}"/>']
    for number in range(6):
        at = scale.begun + (scale.ended - scale.begun) * number / 5
        parts.append(f'<text class="small" x="{scale(at)}" y="{y + 14}">{at - scale.begun:.3g} s</text>')
    return parts
