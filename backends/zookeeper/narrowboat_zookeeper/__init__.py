"""Narrowboat on ZooKeeper: locks between machines, kept by a quorum of servers."""

from narrowboat_zookeeper.locks import locks

__all__ = ["locks"]
