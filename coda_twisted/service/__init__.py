"""
The service: ``twistd coda-proxy``, a local forward proxy.

``options`` reads the command line, ``frontend`` the clients' connections, ``forward``
carries each request, ``relay`` each tunnel, ``access`` says who may, ``pages`` says
why not.  ``lifecycle`` begins and ends the service, which is one process (``server``)
or several: ``processes`` starts a ``worker`` each, as ``supervisor`` decides.
"""

from __future__ import annotations

from typing import Any

from coda_twisted.service.options import Options

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> Any:
    """Make the service that twistd and twist run."""
    from twisted.internet import reactor

    from coda_twisted.service.lifecycle import make_service

    return make_service(options, reactor)
