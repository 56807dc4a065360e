from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import TestCase

from coda_twisted import Agent
from coda_twisted.testing import FakeOrigin, FakeProxy


class TCPTests(TestCase):
    async def listen(self, server: FakeProxy | FakeOrigin) -> str:
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        port = await endpoint.listen(server)
        self.addCleanup(port.stopListening)
        self.addCleanup(server.close)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def test_gets_through(self) -> None:
        site = await self.listen(FakeOrigin(reactor))
        proxy = FakeProxy(reactor, "ntlm", users={"me": "secret"})
        url = await self.listen(proxy)
        agent = Agent(reactor, proxy=url, credentials=("me", "secret"))
        self.addCleanup(agent.client.close)

        response = await agent.request(b"GET", site.encode())

        self.assertEqual(response.code, 200)
        self.assertEqual(proxy.accounts.logons("me"), 1)
