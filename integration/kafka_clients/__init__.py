"""What the Kafka backend needs of a client (`narrowboat_kafka.client`), of each client that it has, against a real server.

The rest of the backend is proven by the kit on each of them; here is what the kit sees only from afar.
"""
