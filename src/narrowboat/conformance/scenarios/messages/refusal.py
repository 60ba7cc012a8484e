"""B109 and B110: what cannot be had, or is written wrong, is refused clearly before anything is opened."""

from __future__ import annotations

import traceback

from narrowboat.capabilities import Support
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import ConfigurationError, Unsupported


@scenario("B109")
async def bad_urls_are_refused(kit: MessageKit) -> None:
    """An unknown scheme, option or value is one ConfigurationError that names it and tells no secret; nothing is opened."""
    separator = "&" if "?" in kit.broker_url else "?"
    scheme = kit.harness.scheme
    for url in (
        f"{scheme}x://user:hunter2@host/",
        "no url at all",
        f"{kit.broker_url}{separator}no_such_option=1",
        f"{kit.broker_url}{separator}timeout=hunter2",
        "",
    ):
        error = await fails(ConfigurationError, lambda url=url: kit.broker(url=url))  # type: ignore[misc]  # bound now
        text = "".join(traceback.format_exception(error))
        assert "user:hunter2" not in str(error) and ":hunter2@" not in str(error), text
    near = await fails(ConfigurationError, lambda: kit.broker(url=f"{kit.broker_url}{separator}timeuot=1"))
    assert "timeout" in str(near), near
    assert not kit.seen.calls


@scenario("B110")
async def what_is_not_claimed_is_refused(kit: MessageKit) -> None:
    """require= for what is not claimed is Unsupported before any I/O; what is claimed is accepted; unknown claims are named."""
    claims = kit.broker_claims
    for name in ("order", "delay", "priority", "ttl", "dedup", "replay", "topics", "dead_letters", "request_reply", "depth"):
        if getattr(claims, name) is Support.ABSENT:
            await fails(Unsupported, lambda name=name: kit.broker(require=name))  # type: ignore[misc]  # bound now
        else:
            kit.broker(require=name)
    await fails(Unsupported, lambda: kit.broker(require=f"body_max={claims.body_max + 1}"))
    await fails(ConfigurationError, lambda: kit.broker(require="no_such_claim"))
    assert not kit.seen.calls
