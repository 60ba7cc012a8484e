"""Narrowboat on ZeroMQ: locks and messages of a `narrowboat serve`, one file behind one port."""

from narrowboat_zeromq.broker import broker
from narrowboat_zeromq.locks import locks

__all__ = ["broker", "locks"]
