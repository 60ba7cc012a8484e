"""What goes wrong in a scenario: the network, the server, a driver's answers, an interrupt at any point.

`tap` counts what a driver is asked; `proxy` and `network` stand between a client and its server; `server` is the server's
process; `layers` answer as some backends do; `sweep` strikes at every point of a call.
"""
