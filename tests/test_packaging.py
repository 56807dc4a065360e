"""What is installed, how it is found, and what importing it costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import coda_twisted

CHECKOUT = Path(__file__).parents[1]

PLUGIN = "twisted.plugins.coda_twisted_plugin"

# What a plugin file must leave alone: twistd reads it before a reactor is chosen.
HEAVY = ("coda_twisted", "twisted.internet.reactor", "twisted.web", "OpenSSL", "spnego")


def modules_after(statement: str) -> set[str]:
    """
    Run *statement* in a new interpreter that takes every warning for an error.

    :returns: The modules that it has then.
    """
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return set(json.loads(done.stdout))


def among(modules: set[str], *names: str) -> list[str]:
    """Find those of *modules* that are called so, or are below one that is."""
    return sorted(
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in names)
    )


class PluginTests(SynchronousTestCase):
    """Twisted finds us, and pays little for it."""

    def test_directories_are_shared(self) -> None:
        """``twisted`` and ``twisted.plugins`` stay Twisted's: they have no module."""
        for directory in (CHECKOUT / "twisted", CHECKOUT / "twisted" / "plugins"):
            self.assertFalse((directory / "__init__.py").exists(), directory)

    def test_light(self) -> None:
        """The plugin file imports nothing of ours, and nothing heavy of others."""
        modules = modules_after(f"import {PLUGIN}")
        self.assertIn(PLUGIN, modules)
        self.assertEqual(among(modules, *HEAVY), [])

    def test_service(self) -> None:
        """``twistd`` finds coda-proxy, once."""
        makers: list[Any] = list(getPlugins(IServiceMaker))
        ours = [maker.module for maker in makers if maker.tapname == "coda-proxy"]
        self.assertEqual(ours, ["coda_twisted.service"])

    def test_endpoint(self) -> None:
        """``clientFromString`` finds endpoint strings that begin with ``coda:``."""
        prefixes = [
            parser.prefix
            for parser in getPlugins(IStreamClientEndpointStringParserWithReactor)
        ]
        self.assertEqual(prefixes.count("coda"), 1)


class FaceTests(SynchronousTestCase):
    """``import coda_twisted`` costs nothing, and its names are there when asked for."""

    def test_lazy(self) -> None:
        """Importing the package imports its version alone, without a warning."""
        modules = modules_after("import coda_twisted")
        self.assertEqual(
            among(modules, "coda_twisted", "twisted", "OpenSSL", "spnego"),
            ["coda_twisted", "coda_twisted._version"],
        )

    def test_whole(self) -> None:
        """Importing every public name warns of nothing, and installs no reactor."""
        modules = modules_after("from coda_twisted import *")
        self.assertIn("coda_twisted.client.exchange", modules)
        self.assertNotIn("twisted.internet.reactor", modules)

    def test_names(self) -> None:
        """Every public name leads to something, which calls itself by that name."""
        for name in set(coda_twisted.__all__) - {"__version__"}:
            self.assertEqual(getattr(coda_twisted, name).__name__, name)
        self.assertEqual(dir(coda_twisted), sorted(coda_twisted.__all__))

    def test_documented(self) -> None:
        """The documentation's page of the API begins with every public name."""
        page = (CHECKOUT / "docs" / "api.rst").read_text("utf-8")
        told = set(re.findall(r"`~coda_twisted\.[\w.]+\.(\w+)`", page))
        self.assertEqual(told, set(coda_twisted.__all__) - {"__version__"})

    def test_no_such_name(self) -> None:
        """A name that is not public is reported as with any module."""
        with self.assertRaisesRegex(AttributeError, "coda_twisted.*'Nonsense'"):
            coda_twisted.Nonsense  # noqa: B018


class DistributionTests(SynchronousTestCase):
    """``setup.cfg`` lists what there is."""

    def setUp(self) -> None:
        self.configuration = ConfigParser()
        self.configuration.read(CHECKOUT / "setup.cfg", "utf-8")

    def test_packages(self) -> None:
        """Every directory with modules is a package, and is installed."""
        directories = {
            path.parent for path in (CHECKOUT / "coda_twisted").rglob("*.py")
        }
        for directory in directories:
            self.assertTrue((directory / "__init__.py").exists(), directory)
        packages = {
            ".".join(directory.relative_to(CHECKOUT).parts) for directory in directories
        }
        listed = self.configuration["options"]["packages"].split()
        self.assertEqual(sorted(listed), sorted({*packages, "twisted.plugins"}))

    def test_typed(self) -> None:
        """The marker that lets type checkers read our annotations is installed."""
        data = self.configuration["options.package_data"]["coda_twisted"].split()
        for name in data:
            self.assertTrue((CHECKOUT / "coda_twisted" / name).exists(), name)
        self.assertIn("py.typed", data)

    def test_kerberos_is_asked_for(self) -> None:
        """No other extra needs a compiler, for the README's commands name none."""
        extras = self.configuration["options.extras_require"]
        needing = [
            name for name in extras if name != "kerberos" and "kerberos" in extras[name]
        ]
        self.assertEqual(needing, [])
