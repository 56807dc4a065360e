from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.testing import FakeNetwork


class NTLMTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = FakeNetwork()
        self.network.add_origin("http://site.test", lambda request: (200, [], b"hi"))
        self.proxy = self.network.add_proxy("ntlm", users={"CORP\\al": "secret"})

    def test_gets_through(self) -> None:
        me = ("CORP\\al", "secret")
        agent = self.network.agent(proxy=self.proxy.url, credentials=me)
        response = self.successResultOf(agent.request(b"GET", b"http://site.test/"))
        self.assertEqual(response.code, 200)
        self.assertEqual(self.proxy.accounts.logons("CORP\\al"), 1)
