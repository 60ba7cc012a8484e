"""Narrowboat on SQLite: locks and messages in one file, between the processes of one machine."""

from narrowboat_sqlite.broker import broker
from narrowboat_sqlite.locks import locks

__all__ = ["broker", "locks"]
