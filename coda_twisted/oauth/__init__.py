"""
OAuth, for requests to origin servers and for proxies.

1.0a signs requests (RFC 5849); 2 gets tokens and sends them (RFC 6749, 6750).
"""

from __future__ import annotations

from coda_twisted.auth.oauth1_signing import Placement
from coda_twisted.oauth.agent import OAuth2Agent
from coda_twisted.oauth.authorization import Authorization
from coda_twisted.oauth.bearer import BearerCredentials, TokenSource
from coda_twisted.oauth.client import OAuth2Client
from coda_twisted.oauth.device import DeviceAuthorization
from coda_twisted.oauth.errors import OAuthError
from coda_twisted.oauth.loopback import LoopbackReceiver
from coda_twisted.oauth.oauth1 import OAuth1Agent, OAuth1Dance
from coda_twisted.oauth.signing import OAuth1Credentials
from coda_twisted.oauth.token import Token
from coda_twisted.oauth.tokens import Tokens

__all__ = [
    "Authorization",
    "BearerCredentials",
    "DeviceAuthorization",
    "LoopbackReceiver",
    "OAuth1Agent",
    "OAuth1Credentials",
    "OAuth1Dance",
    "OAuth2Agent",
    "OAuth2Client",
    "OAuthError",
    "Placement",
    "Token",
    "TokenSource",
    "Tokens",
]
