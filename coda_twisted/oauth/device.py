"""The device authorization grant: a browser elsewhere (RFC 8628)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from oauthlib.oauth2.rfc8628.clients.device import DeviceClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from coda_twisted.oauth.endpoint import Endpoint
from coda_twisted.oauth.errors import OAuthError
from coda_twisted.oauth.origins import shown
from coda_twisted.oauth.token import Token

__all__ = ["DeviceAuthorization", "begin"]

INTERVAL = 5.0
"""Seconds between two questions, where the server names none (3.2)."""

SLOWER = 5.0
"""Seconds to add at each ``slow_down`` (3.5)."""


class DeviceAuthorization:
    """
    What the user is to do, and what comes of it.

    :ivar user_code: What they are to type.
    :ivar verification_uri: Where.
    :ivar verification_uri_complete: The same with the code in it, for a QR code;
        ``None`` where the server gives none.
    :ivar expires_at: Until when, in seconds since the epoch.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        scope: tuple[str, ...],
        *,
        device_code: str,
        user_code: str,
        verification_uri: str,
        verification_uri_complete: str | None,
        expires_at: float,
        interval: float,
    ) -> None:
        self.user_code = user_code
        self.verification_uri = verification_uri
        self.verification_uri_complete = verification_uri_complete
        self.expires_at = expires_at
        self._endpoint = endpoint
        self._scope = scope
        self._device_code = device_code
        self._interval = interval

    def __repr__(self) -> str:
        return f"<DeviceAuthorization at {shown(self.verification_uri)}>"

    def token(self) -> Deferred[Token]:
        """
        Ask until the user has decided.

        :returns: Fails with :class:`OAuthError`; its ``error`` is ``access_denied``
            or ``expired_token`` where the user has not agreed.
        """
        return Deferred.fromCoroutine(self._token())

    async def _token(self) -> Token:
        endpoint = self._endpoint
        ours = endpoint.in_form()
        include = ours.pop("client_id", None) is not None
        form = DeviceClient(endpoint.client_id).prepare_request_body(
            self._device_code, body=endpoint.extra, include_client_id=include, **ours
        )
        while endpoint.now() < self.expires_at:
            await deferLater(endpoint.reactor, self._interval)
            try:
                return await endpoint.token(
                    form, secrets=(self._device_code,), scope=self._scope
                )
            except OAuthError as error:
                if error.error == "slow_down":
                    self._interval += SLOWER
                elif error.status is not None and error.status >= 500:
                    self._interval *= 2
                elif error.error != "authorization_pending":
                    raise
            except CancelledError:
                raise
            except Exception:
                # 3.5: "On encountering a connection timeout, clients MUST
                # unilaterally reduce their polling frequency before retrying."
                self._interval *= 2
        raise OAuthError(
            "the user did not decide in time",
            peer=f"authorization server {shown(endpoint.url)}",
            error="expired_token",
        )


async def begin(
    endpoint: Endpoint, device_url: str, scope: tuple[str, ...]
) -> DeviceAuthorization:
    """
    Ask for a code (3.1).

    oauthlib would put this into a URI's query, with the client's secret, where
    servers log it; it is a form.
    """
    params = [("client_id", endpoint.client_id)]
    if scope:
        params.append(("scope", " ".join(scope)))
    params += [pair for pair in endpoint.in_form().items() if pair not in params]
    began = endpoint.now()
    answer = await endpoint.ask(endpoint.checked(device_url), urlencode(params))
    complete = answer.get("verification_uri_complete")
    try:
        return DeviceAuthorization(
            endpoint,
            scope,
            device_code=_text(answer["device_code"]),
            user_code=_text(answer["user_code"]),
            # Google's was there before the RFC.
            verification_uri=_text(
                answer.get("verification_uri") or answer["verification_url"]
            ),
            verification_uri_complete=None if complete is None else _text(complete),
            expires_at=began + float(answer["expires_in"]),
            interval=max(float(answer.get("interval", INTERVAL)), 1.0),
        )
    except (KeyError, TypeError, ValueError):
        raise endpoint.error("it began no device authorization") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("not a text that can be shown")
    return value
