"""How fast, side by side with the peers and with the bare driver or client, in one run; never a test.

`python -m benchmarks` prints a table of ratios. Machines are noisy: within one comparison the two sides take turns, each
counts its best round, and only the ratio is worth quoting.
"""
