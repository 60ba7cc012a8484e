"""Narrowboat on PostgreSQL: locks and messages as rows, in the database that the program has already."""

from narrowboat_postgresql.broker import broker
from narrowboat_postgresql.locks import locks

__all__ = ["broker", "locks"]
