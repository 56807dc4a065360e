"""Tests: each file for one module, servers in :mod:`tests.integration`."""
