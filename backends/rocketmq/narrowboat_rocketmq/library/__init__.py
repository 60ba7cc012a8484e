"""What is gRPC's: the message classes made by `tools/rocketmq_stubs.py`, and the calls that take and give them."""
