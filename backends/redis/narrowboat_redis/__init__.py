"""Narrowboat on Redis: locks and messages over the network, on a server, a cluster, or the primary of some sentinels."""

from narrowboat_redis.broker import broker
from narrowboat_redis.locks import locks

__all__ = ["broker", "locks"]
