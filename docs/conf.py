"""Sphinx reads this; ``sphinx-build -W -b html docs docs/_build/html`` builds."""

import sys
from pathlib import Path

from coda_twisted import __version__

sys.path.insert(0, str(Path(__file__).with_name("_ext")))
sys.path.insert(1, str(Path(__file__).parents[1]))  # hostile_table reads tests

project = "coda_twisted"
author = "the coda_twisted developers"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "fault_table",
    "hostile_table",
    "zope_interfaces",
]
exclude_patterns = ["_build"]

# References to our own names must lead somewhere.  Those to Twisted and Python
# do not: that would take their inventories from the network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!coda_twisted\b).*"),
    ("py:class", r".*\.T"),  # type variables have no page
]

html_theme = "alabaster"
html_theme_options = {
    "description": "Answers HTTP proxies that demand NTLM, Kerberos, Digest or Basic",
    "fixed_sidebar": True,
}

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
