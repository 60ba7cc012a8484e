"""Narrowboat on RabbitMQ: messages over AMQP 0-9-1, in quorum queues."""

from narrowboat_rabbitmq.backend import broker

__all__ = ["broker"]
