"""Large content between two raw connections: it passes us by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coda_twisted.service.passage import PASS_FROM, Passage
from coda_twisted.service.sockets import Flushed, are_raw

if TYPE_CHECKING:
    from coda_twisted.client.response import Response
    from coda_twisted.client.upload import Upload
    from coda_twisted.service.content import RequestContent
    from coda_twisted.service.forward import Forwarding
    from coda_twisted.service.frontend import ClientConnection
    from coda_twisted.service.proxy import Proxy

__all__ = ["Download", "Sending"]


class Download:
    """
    The rest of a response's content on its way to a client.

    From the beginning, and until the response ends or :meth:`stop` is called, the
    response's flow is ours.
    """

    def __init__(
        self,
        proxy: Proxy,
        client: ClientConnection,
        response: Response,
        forwarding: Forwarding,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._response = response
        self._forwarding = forwarding
        self._passage: Passage | None = None
        self._stopped = False
        response.lend(waiting=False)
        client.when_flushed(self._begin)

    @staticmethod
    def suits(proxy: Proxy, client: ClientConnection, response: Response) -> bool:
        """Say whether the content can go this way, and is worth it."""
        return response.outstanding >= PASS_FROM and are_raw(
            proxy.clock, client.transport, response.transport
        )

    def _begin(self) -> None:
        if self._stopped:
            return
        response = self._response
        response.lend(waiting=True)
        try:
            self._passage = Passage(
                self._proxy.clock,
                self._proxy.pipes,
                response.transport,
                self._client.transport,
                response.outstanding,
                self,
            )
        except OSError:  # out of descriptors
            self._leave()

    def _leave(self) -> None:
        """Let the rest come in the ordinary way."""
        self.stop()
        self._forwarding.passed()
        self._response.resumeProducing()

    def took(self, octets: int) -> None:
        """Count it; the server is waited for again (Passenger)."""
        self._client.await_reading(False)
        self._forwarding.count(octets)
        self._response.lend(waiting=True)

    def stalled(self) -> None:
        """Wait for the client, not for the server (Passenger)."""
        self._response.lend(waiting=False)
        self._client.await_reading(True)

    def arrived(self) -> None:
        """End the response (Passenger)."""
        assert self._passage is not None
        moved = self._passage.moved
        self._client.await_reading(False)
        self._forwarding.passed()
        self._response.skip(moved)

    def source_ended(self) -> None:
        """Have the connection find out (Passenger)."""
        assert self._passage is not None
        self._response.skip(self._passage.moved)
        self._leave()

    def source_broke(self) -> None:
        """Drop the connection to the server; that tells everybody (Passenger)."""
        self._forwarding.passed()
        self._response.abort()

    def target_broke(self) -> None:
        """Drop the client's connection; that tells everybody (Passenger)."""
        self._client.drop()

    def stop(self) -> None:
        """Move nothing more."""
        self._stopped = True
        if self._passage is not None:
            self._client.await_reading(False)
            self._passage.stop()


class Sending:
    """
    The rest of a request's content on its way to a server.

    From the beginning, and until it is complete or :meth:`stop` is called, the
    client's flow is ours.

    :param upload: What frames the content for the server.
    """

    def __init__(
        self,
        proxy: Proxy,
        client: ClientConnection,
        content: RequestContent,
        upload: Upload,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._content = content
        self._upload = upload
        self._passage: Passage | None = None
        self._stopped = False
        client.flow.pauseProducing()
        upload.flows(False)
        upload.transport.unregisterProducer()
        Flushed(upload.transport, self._begin, upload.stopProducing)

    @staticmethod
    def suits(proxy: Proxy, client: ClientConnection, upload: Any) -> bool:
        """Say whether the content can go this way, and is worth it."""
        return client.outstanding >= PASS_FROM and are_raw(
            proxy.clock, client.transport, upload.transport
        )

    def _begin(self) -> None:
        if self._stopped:
            return
        self._upload.transport.registerProducer(self._upload, True)
        self._upload.flows(True)
        self._client.await_content(True)
        try:
            self._passage = Passage(
                self._proxy.clock,
                self._proxy.pipes,
                self._client.transport,
                self._upload.transport,
                self._client.outstanding,
                self,
            )
        except OSError:  # out of descriptors
            self._content.passed()

    def took(self, octets: int) -> None:
        """Count it; the client is waited for again (Passenger)."""
        self._upload.skip(octets)
        self._upload.flows(True)
        self._client.await_content(True)

    def stalled(self) -> None:
        """Wait for the server, not for the client (Passenger)."""
        self._upload.flows(False)
        self._client.await_content(False)

    def arrived(self) -> None:
        """Go on behind it (Passenger)."""
        self._content.passed()

    def source_ended(self) -> None:
        """Have the client's connection find out (Passenger)."""
        self._content.passed()

    def source_broke(self) -> None:
        """Drop the client's connection; that tells everybody (Passenger)."""
        self._client.drop()

    def target_broke(self) -> None:
        """
        Drop the server's connection; that tells everybody (Passenger).

        Its answer may be there already, and is read first.  The kernel has told us of
        the reset, and tells of it once: who read next would be told of an end.
        """
        self._upload.transport.abortConnection()

    def stop(self) -> None:
        """Move nothing more; what has left the client is accounted for."""
        self._stopped = True
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.stop()
            self._client.skip(passage.moved)
