"""
Messages made to be read differently by two servers, and what becomes of each.

:mod:`tests.hostile.requests` and :mod:`tests.hostile.responses` are the tables.  The
unit tests play them in memory, those of ``tests/integration`` through a running
service, and ``docs/hostile.rst`` shows them.
"""
