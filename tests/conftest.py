"""Signals as a terminal gives them: a shell that starts the tests in the background has them ignored, and so all they start.

Then `Ctrl-C` of the tests that press it would reach nobody.
"""

from __future__ import annotations

import signal

for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
