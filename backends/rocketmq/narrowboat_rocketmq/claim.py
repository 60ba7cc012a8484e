"""One message that the server has handed to us, and until when it is ours by our own clock.

The server answers OK to whoever settles twice, too late, or by a handle that an extension replaced, so that nobody but us can
tell what is stale: the newest handle counts, and nothing is settled behind `until`. Who changes a claim does so alone: its feed
has a mutex for settlements and extensions, and the rest comes before anybody else has the claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrowboat.contract import Delivery
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.library.calls import resource

#: Seconds that the server is told beyond a lease, for what an answer takes to reach us: it must not hand out what we hold.
MARGIN = 0.5


@dataclass(eq=False)
class Claim:
    """See the module's text."""

    message: Any  #: as the server has sent it
    topic: str  #: which it came from
    handle: str  #: the newest
    came: float  #: on the broker's clock
    until: float  #: on the broker's clock
    settled: bool = False
    doubtful: bool = False  #: a change of its handle was not answered, so that ours may be an old one

    def current(self, now: float) -> bool:
        """Whether it is ours."""
        return not self.settled and now < self.until

    def entry(self) -> Any:
        """What acknowledges it."""
        return service.AckMessageEntry(message_id=self.message.system_properties.message_id, receipt_handle=self.handle)

    def change(self, group: str, namespace: str, seconds: float) -> Any:
        """What lets the server hand it out `seconds` from now."""
        request = service.ChangeInvisibleDurationRequest(
            group=resource(group, namespace),
            topic=resource(self.topic, namespace),
            receipt_handle=self.handle,
            message_id=self.message.system_properties.message_id,
        )
        request.invisible_duration.FromMilliseconds(max(0, round(seconds * 1000)))
        return request


def claim_of(delivery: Delivery) -> Claim:
    """The claim of a delivery of ours."""
    claim = delivery.tag.claim  # type: ignore[attr-defined]  # a Tag of ours
    assert isinstance(claim, Claim)
    return claim
