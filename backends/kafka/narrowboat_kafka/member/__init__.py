"""One member of one group, on the I/O thread: what it reads, hands out, takes back and commits."""
