"""Narrowboat on PostgreSQL: locks and messages as rows, in the database that the program has already."""

from narrowboat_postgresql.broker import broker
from narrowboat_postgresql.locks import locks
from narrowboat_postgresql.outbox import Outbox

__all__ = ["Outbox", "broker", "locks"]
