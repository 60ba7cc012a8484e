"""Narrowboat on Cassandra: locks as one row a name, taken by lightweight transactions."""

from narrowboat_cassandra.locks import locks

__all__ = ["locks"]
