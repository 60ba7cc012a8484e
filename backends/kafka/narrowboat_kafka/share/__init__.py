"""Queues whose messages the server hands out and settles one by one: share groups (`?groups=share`), Kafka 4.2 and later."""
