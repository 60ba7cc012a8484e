"""The lock half of the core: one possession from its first attempt to its last release, for both faces.

What a user calls is in `narrowboat.locking` and `narrowboat.aio.locking`. Nothing here knows a message.
"""
