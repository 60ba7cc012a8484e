"""What a message that was read becomes where it goes on elsewhere: to wait, to the dead letters, back to its own queue.

Pure functions. Who reads it settles it once the record that is made here is stored.
"""

from __future__ import annotations

import time

from narrowboat.contract import Reject
from narrowboat.driver.sources import dead_headers
from narrowboat_kafka.format import levels, records
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.format.stored import Stored


def later(record: Stored, topic: str, count: int, *, delay: float, attempts: int) -> Record:
    """It waits in the retry topic `topic`, which has `count` levels, for so many seconds."""
    now = time.time()
    level = levels.level(delay, count)
    changes = {
        records.ATTEMPTS: str(attempts),
        records.DUE: repr(now + delay),
        records.STEP: repr(now + levels.stay(level)),
    }
    return records.republished(record, topic, level, changes)


def dead_letter(record: Stored, topic: str, outcome: Reject, origin: str) -> Record:
    """It is a dead letter in `topic`."""
    changes = dead_headers({}, reason=outcome.reason, attempts=outcome.attempts, origin=origin)
    dropped = (records.ATTEMPTS, records.EXPIRES)  # it lives, and is counted, anew
    found = records.republished(record, topic, None, changes)
    return found._replace(headers=[each for each in found.headers if each[0] not in dropped])


def anew(record: Stored, attempts: int) -> Record:
    """It goes to the end of its own topic, as one that was handed out so often."""
    return records.republished(record, record.topic, None, {records.ATTEMPTS: str(attempts)})
