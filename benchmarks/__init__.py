"""Measurements that anyone can run from a checkout; modules are commands or parts."""
