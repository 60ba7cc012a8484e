"""Tests against real servers. They need a server each; `tests/` needs none."""
