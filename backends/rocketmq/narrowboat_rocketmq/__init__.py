"""Narrowboat on RocketMQ 5: messages over the gRPC of its proxy, each with a lease of its own."""

from narrowboat_rocketmq.broker import broker

__all__ = ["broker"]
