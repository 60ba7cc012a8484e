"""Narrowboat on Apache Kafka: queues and topics with acknowledgement of single messages."""

from narrowboat_kafka.broker import broker

__all__ = ["broker"]
