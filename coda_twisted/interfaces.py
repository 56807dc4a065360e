"""What a user of this package may implement."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.web.iweb import IBodyProducer
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from coda_twisted.auth.challenge import Challenge
    from coda_twisted.auth.steps import AuthRequest, Peer, Step
    from coda_twisted.routing.routes import Route

__all__ = [
    "IAuthConversation",
    "ICredentialSource",
    "ICredentials",
    "IRewindableBody",
    "IRouter",
]


class IAuthConversation(Interface):
    """
    One auth-scheme's side of the talk, on one connection, in one role.

    After ``GiveUp`` or an exception the conversation is over and only ``lost``
    may be called.
    """

    scheme: str = Attribute("The auth-scheme, as in the challenge: ``NTLM``.")
    connection_bound: bool = Attribute(
        "Whether, once accepted, later requests on the connection need nothing."
    )

    def first(request: AuthRequest) -> Step:
        """Begin before anything was said, by what is remembered of the peer."""

    def challenged(challenge: Challenge, request: AuthRequest) -> Step:
        """Answer the first or the next challenge of this scheme."""

    def worked(result: Any) -> Step:
        """Go on with what a ``Work`` returned."""

    def failed(error: Exception) -> Step:
        """Say what follows from the exception that a ``Work`` raised."""

    def accepted(challenge: Challenge | None, info: bytes | None) -> Step:
        """
        Take note that the peer accepted; *challenge* may hold a final token.

        :param challenge: This scheme's challenge in the accepting answer.
        :param info: The (Proxy-)Authentication-Info field's value.
        :returns: ``Proceed``, or a ``Work`` that checks the peer's final token.
        :raises MutualAuthenticationFailed: The peer did not prove itself.
        """

    def lost() -> None:
        """Forget everything: the connection is gone."""


class ICredentials(Interface):
    """Who we are to some peer."""

    identity: Hashable = Attribute(
        "Who this is, for pool keys and logs; ``str()`` of it is for people. "
        "Never the secret."
    )
    fingerprint: Hashable = Attribute(
        "Changes whenever the secret does; tells nothing about it."
    )

    def schemes() -> Sequence[str]:
        """Name the auth-schemes for which these credentials can speak."""

    def conversation(scheme: str, peer: Peer, context: Any) -> IAuthConversation:
        """
        Begin to speak *scheme* (lower case) with *peer*.

        :param context: A :class:`coda_twisted.auth.layer.Context`: policy, what is
            remembered of the peer, channel bindings, a source of nonces.
        :raises AuthenticationFailed: These credentials cannot, and why.
        """


class ICredentialSource(Interface):
    """Finds the credentials for a peer."""

    def credentials_for(
        peer: Peer,
    ) -> ICredentials | Deferred[ICredentials | None] | None:
        """Find who we are to *peer*; ``None`` when we have nothing to say to it."""


class IRouter(Interface):
    """Decides which way a request goes."""

    def routes(scheme: str, host: str, port: int) -> Sequence[Route]:
        """
        Name the ways to an origin server, the preferred one first.

        :param scheme: ``http``, ``https``, or ``tunnel`` for a raw stream.
        :returns: At least one route; the next is tried when one cannot be
            reached.
        """


class IRewindableBody(IBodyProducer):
    """A body that can be sent again from its start."""

    def rewind() -> None:
        """Go back to the start, so that ``startProducing`` may be called again."""
