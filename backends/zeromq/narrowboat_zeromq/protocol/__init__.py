"""The protocol between `zmq://` and `narrowboat serve`: pure, without a socket. `docs/protocols/zeromq.md` is its text."""
