"""
Tests against real servers, which they start on loopback and stop again.

A test whose server is not installed is skipped, with the name of what is
missing; with ``CODA_REQUIRE_TOOLS=1`` it fails instead, as ``.ci/run`` wants it.
"""
