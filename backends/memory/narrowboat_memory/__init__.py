"""Narrowboat in memory: locks and messages within one process, and the reference for every other backend."""

from narrowboat_memory.broker import broker
from narrowboat_memory.locks import locks

__all__ = ["broker", "locks"]
