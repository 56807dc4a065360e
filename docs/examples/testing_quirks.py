from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory
from twisted.internet.testing import AccumulatingProtocol
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted import ClientAgent
from coda_twisted.errors import CredentialsRejected
from coda_twisted.testing import Accounts, Digest, FakeNetwork, Quirks


class QuirkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = FakeNetwork()
        self.network.add_origin("https://site.test")

    def test_slow(self) -> None:
        quirks = Quirks(closes=True, body=50_000, slow=2.0)
        proxy = self.network.add_proxy("ntlm", users={"me": "secret"}, quirks=quirks)
        agent = self.network.agent(proxy=proxy.url, credentials=("me", "secret"))

        pending = agent.request(b"GET", b"https://site.test/")
        self.network.advance(5.5)  # three legs of two seconds
        self.assertNoResult(pending)
        self.network.advance(0.5)
        self.assertEqual(self.successResultOf(pending).code, 200)

    def test_wrong_password(self) -> None:
        accounts = Accounts({"me": "secret"}, lockout=3)
        proxy = self.network.add_proxy(Digest(["SHA-256"]), accounts=accounts)
        client = self.network.client(proxy=proxy.url, credentials=("me", "wrong"))
        agent = ClientAgent(client)  # leaves it to us to let requests travel

        answers = [agent.request(b"GET", b"https://site.test/") for _ in range(50)]
        self.network.pump()

        for answer in answers:
            self.failureResultOf(answer, CredentialsRejected)
        self.assertEqual(accounts.failed_logons("me"), 1)
        self.assertFalse(accounts.locked("me"))

    def test_tunnel(self) -> None:
        self.network.listen("echo.test", 7, Factory.forProtocol(Echo))
        proxy = self.network.add_proxy("basic", users={"me": "secret"})
        client = self.network.client(proxy=proxy.url, credentials=("me", "secret"))

        ear = AccumulatingProtocol()
        connectProtocol(client.endpoint("echo.test", 7), ear)
        self.network.pump()
        assert ear.transport is not None
        ear.transport.write(b"hello")
        self.network.pump()
        self.assertEqual(ear.data, b"hello")
