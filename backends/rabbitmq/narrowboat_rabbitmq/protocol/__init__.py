"""AMQP and what this backend makes of it: names, properties, headers, delays, acks. Pure: no I/O, no clock, no pika."""
