"""What goes wrong in a scenario: the network, the server, a driver's answers, an interrupt at any point.

`tap` counts the calls of a driver. `proxy` and `network` stand between a client and its server. `server` is the server's
process. `layers` answer as some backends do. `sweep` cuts a call off at every point. `quiet` keeps what is provoked off the
screen.
"""
