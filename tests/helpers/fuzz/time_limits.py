"""A limit of seconds for a call."""

import contextlib
import signal


class HangError(BaseException):
    """It took too long."""


@contextlib.contextmanager
def time_limit(seconds):
    def stop(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
