"""The version, where setup.cfg reads it without importing the package."""

__version__ = "26.11.0.dev0"
