"""Measurements that anyone can run from a checkout; each module is a command."""
