"""
What to say to a challenge.

This package is pure: it holds no clock, no randomness of its own, no sockets
and no logging.  Work that may block is returned as a value.
"""
