"""How a client reaches its server: one socket on one thread, and the calls that wait for their answers."""
