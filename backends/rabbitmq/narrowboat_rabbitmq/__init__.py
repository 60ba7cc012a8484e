"""Narrowboat on RabbitMQ: messages over AMQP 0-9-1, in quorum queues."""

from narrowboat_rabbitmq.broker import broker

__all__ = ["broker"]
