"""The refusals of the memory backend, in words that all keepers of messages share."""

from __future__ import annotations

from narrowboat.driver.sources import Refusals
from narrowboat_memory.options import SCHEME

refuse = Refusals(SCHEME)
