"""The upper bound in a test of time, extended by what the machine stood still for since the import.

assert time.monotonic() - begun < upper(2)
"""

from narrowboat.conformance.watch import watch

upper = watch().extended
