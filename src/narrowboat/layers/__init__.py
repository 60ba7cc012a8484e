"""Wrappers over the two driver contracts, one idea a file. They stand between the core and a driver (`wrap=`)."""
