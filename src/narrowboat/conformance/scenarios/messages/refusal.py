"""B109 and B110: a URL that is wrong and a claim that is not made are refused clearly before a driver is opened."""

from __future__ import annotations

from functools import partial

from narrowboat.capabilities import Support
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import ConfigurationError, Unsupported


@scenario("B109")
async def bad_urls_are_refused(kit: MessageKit) -> None:
    """An unknown scheme, option or value is one ConfigurationError that names it and shows no secret. Nothing is opened."""
    for url in (
        f"{kit.harness.scheme}x://user:hunter2@host/",
        "no url at all",
        kit.url_with("no_such_option=1"),
        kit.url_with("timeout=hunter2"),
        "",
    ):
        error = await fails(ConfigurationError, partial(kit.broker, url=url))
        assert "hunter2" not in str(error), f"the error shows a secret: {error}"
    near = await fails(ConfigurationError, lambda: kit.broker(url=kit.url_with("timeuot=1")))
    assert "timeout" in str(near), f"the error does not name the near miss: {near}"
    assert not kit.seen.calls


@scenario("B110")
async def what_is_not_claimed_is_refused(kit: MessageKit) -> None:
    """require= raises Unsupported before any I/O for what is not claimed, accepts what is, and names a misspelt claim."""
    claims = kit.broker_claims
    kept = ("order", "delay", "priority", "ttl", "dedup", "replay")
    for name in (*kept, "topics", "dead_letters", "request_reply", "depth", "extension", "alter", "listing", "oldest"):
        if getattr(claims, name) is Support.ABSENT:
            await fails(Unsupported, partial(kit.broker, require=name))
        else:
            kit.broker(require=name)
    await fails(Unsupported, lambda: kit.broker(require=f"body_max={claims.body_max + 1}"))
    unknown = await fails(ConfigurationError, lambda: kit.broker(require="delai"))
    assert "'delay'" in str(unknown), f"the error does not name the near miss: {unknown}"
    assert not kit.seen.calls
