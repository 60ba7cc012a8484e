"""The message half of the core: publishing, consuming, settling, for both faces.

What a user calls is in `narrowboat.messaging` and `narrowboat.aio.messaging`. Nothing here knows a lock.
"""
