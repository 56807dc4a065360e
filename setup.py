"""For tools that still want this file; all is said in setup.cfg."""

from setuptools import setup

setup()
