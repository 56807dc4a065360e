from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.testing import FakeNetwork


class WrongPasswordTests(SynchronousTestCase):
    def test_costs_one_logon(self) -> None:
        network = FakeNetwork()
        network.add_origin("http://site.test")
        proxy = network.add_proxy("ntlm", users={"CORP\\alice": "secret"})
        agent = network.agent(proxy="http://proxy.test:3128", credentials=("a", "b"))

        answers = [agent.request(b"GET", b"http://site.test/") for _ in range(50)]

        for answer in answers:
            self.failureResultOf(answer)
        self.assertEqual(proxy.accounts.failed_logons(), 1)
