"""What both halves stand on: lanes of calls, the two runtimes, timers, the driver behind a URL.

For the core alone: a backend stands on `narrowboat.contract` and `narrowboat.driver`. Nothing here knows a lock or a message.
"""
