"""Tests for what the benchmarks compute; what they measure is not tested."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import chosen, parse
from benchmarks.bench import QUICK, Bench
from benchmarks.cpu import Stat, descendants, parse_stat, tree_ns
from benchmarks.exchanges import Fault, check_small
from benchmarks.figures import Figures
from benchmarks.framing import Content, parse_head
from benchmarks.machine import describe
from benchmarks.origin import answer
from benchmarks.report import (
    cell,
    faults,
    rst_table,
    service_table,
    table,
    text,
    written,
)
from benchmarks.results import Results
from benchmarks.targets import TARGETS, Target
from benchmarks.wire import BODY, CHUNK, RESPONSE, connect_head, request_head

SMALL = RESPONSE % b"Content-Length: 1024" + BODY


class CPUTests(SynchronousTestCase):
    """Which processes belong to a server, and what they have used."""

    def test_reads_stat(self) -> None:
        """The name in parentheses may hold spaces and parentheses (proc(5))."""
        line = "1234 (a) b (c) S 12 34 56 0 -1 4194560 166 0 0 0 11 22 33 44 20 0 1 0"
        self.assertEqual(parse_stat(line), Stat(1234, 12, 56, 33 + 44))

    def test_finds_descendants(self) -> None:
        """Children count, and orphans of the session; others do not."""
        stats = [
            Stat(1, 0, 1, 0),
            Stat(10, 1, 10, 0),
            Stat(11, 10, 10, 0),
            Stat(12, 11, 12, 0),  # in a session of its own
            Stat(13, 1, 10, 0),  # its parent is gone
            Stat(20, 1, 20, 0),
        ]
        found = sorted(stat.pid for stat in descendants(10, stats))
        self.assertEqual(found, [10, 11, 12, 13])

    def test_own_clock(self) -> None:
        """The clock of a process is that which it reads itself."""
        if not sys.platform.startswith("linux"):
            raise SkipTest("only Linux has this clock")
        before = time.process_time_ns()
        used = tree_ns(os.getpid())
        self.assertGreaterEqual(used, before)


class FiguresTests(SynchronousTestCase):
    """Samples, medians and ratios."""

    def setUp(self) -> None:
        self.figures = Figures()
        for value in (5.0, 1.0, 3.0):
            self.figures.add("ours", "get_us", value)
        self.figures.add("squid", "get_us", 2.0)
        self.figures.add("squid", "zero", 0.0)

    def test_median(self) -> None:
        """A figure is the median: one disturbed round does not move it far."""
        self.assertEqual(self.figures.get("ours", "get_us"), 3.0)
        self.assertIsNone(self.figures.get("ours", "p50_us"))
        self.assertIsNone(self.figures.get("nobody", "get_us"))

    def test_ratio(self) -> None:
        """A ratio needs both figures, and something to divide by."""
        self.assertEqual(self.figures.ratio("ours", "get_us", "squid"), 1.5)
        self.assertIsNone(self.figures.ratio("ours", "get_us", "squid", "zero"))
        self.assertIsNone(self.figures.ratio("ours", "get_us", "apache"))

    def test_faults_are_counted(self) -> None:
        """What went wrong is told with its number."""
        self.figures.fault("px", "cut short")
        self.figures.fault("px", "cut short", 2)
        self.figures.fault("px", "status 407")
        self.assertEqual(
            faults(self.figures), ["px: cut short (3 times)", "px: status 407"]
        )

    def test_json(self) -> None:
        """All samples are written down."""
        written = json.loads(json.dumps(self.figures.as_json()))
        self.assertEqual(
            written["figures"]["ours"]["get_us"],
            {"median": 3.0, "samples": [5.0, 1.0, 3.0]},
        )


class TargetTests(SynchronousTestCase):
    """Met, not met, or not measured."""

    def judged(self, target: Target, **samples: float) -> tuple[float | None, str]:
        figures = Figures()
        for row, value in samples.items():
            figures.add(row, "x", value)
        verdict = target.judge(figures)
        return verdict.figure, verdict.word

    def test_ratio_from_above(self) -> None:
        """The limit itself is met."""
        target = Target("", "ours", "x", 0.5, "squid")
        self.assertEqual(self.judged(target, ours=1, squid=2), (0.5, "met"))
        self.assertEqual(self.judged(target, ours=2, squid=2), (1.0, "not met"))

    def test_from_below(self) -> None:
        """Throughput is to be at least so much."""
        target = Target("", "ours", "x", 0.85, "bare", least=True)
        self.assertEqual(self.judged(target, ours=9, bare=10), (0.9, "met"))
        self.assertEqual(self.judged(target, ours=8, bare=10), (0.8, "not met"))

    def test_absolute(self) -> None:
        """Some targets compare with nobody."""
        target = Target("", "ours", "x", 4.0)
        self.assertEqual(self.judged(target, ours=4.5), (4.5, "not met"))

    def test_not_measured(self) -> None:
        """Without either figure nothing is claimed."""
        target = Target("", "ours", "x", 0.5, "squid")
        self.assertEqual(self.judged(target, ours=1), (None, "not measured"))
        self.assertEqual(self.judged(target, squid=1), (None, "not measured"))

    def test_titles_differ(self) -> None:
        """No two targets can be taken for each other."""
        titles = [target.title for target in TARGETS]
        self.assertEqual(len(set(titles)), len(titles))


class ReportTests(SynchronousTestCase):
    """Tables."""

    def test_cell(self) -> None:
        """A figure, its ratio, or a dash."""
        self.assertEqual(cell(None, 2), "-")
        self.assertEqual(cell(1.234, 2), "1.23")
        self.assertEqual(cell(158.4, 0, 0.876), "158 (0.88)")

    def test_base_has_no_ratio(self) -> None:
        """The row that all are compared with is not compared with itself."""
        figures = Figures()
        figures.add("squid", "get_us", 100.0)
        figures.add("coda", "get_us", 80.0)
        lines = table(figures, ["coda", "squid"], [("get_us", "GET", 0)], "squid")
        self.assertEqual(lines, [["", "GET"], ["coda", "80 (0.80)"], ["squid", "100"]])

    def test_text(self) -> None:
        """Parts of a heading stand below each other; figures are flush right."""
        self.assertEqual(
            text([["", "GET, us"], ["squid", "7"], ["ours", "12"]]),
            "       GET\n        us\n-----  ---\nsquid    7\nours    12\n",
        )

    def test_rst(self) -> None:
        """A list-table of Sphinx and docutils."""
        self.assertEqual(
            rst_table([["", "GET"], ["squid", "7"]]),
            ".. list-table::\n   :header-rows: 1\n\n"
            "   * -\n     - GET\n   * - squid\n     - 7\n",
        )

    def test_columns_fit(self) -> None:
        """Every row has as many cells as there are headings."""
        lines = service_table(Figures(), ["coda", "squid"])
        self.assertEqual(len({len(line) for line in lines}), 1)


class FramingTests(SynchronousTestCase):
    """How the load generator knows that it got what it should get."""

    def test_length(self) -> None:
        """A content with its length is complete with its last octet."""
        content = Content(10)
        content.frame({b"content-length": b"10"})
        content.take(b"123456789")
        self.assertFalse(content.complete)
        content.take(b"0")
        self.assertTrue(content.complete)

    def test_cut_short(self) -> None:
        """The end of the connection does not complete it."""
        content = Content(10)
        content.frame({b"content-length": b"10"})
        content.take(b"123")
        content.end()
        self.assertFalse(content.complete)

    def test_until_close(self) -> None:
        """Without a length only the end of the connection does."""
        content = Content(3)
        content.frame({})
        content.take(b"123")
        self.assertFalse(content.complete)
        content.end()
        self.assertTrue(content.complete)

    def test_chunked_in_any_pieces(self) -> None:
        """Framing is not counted, however it is cut (RFC 9112 section 7.1)."""
        data = CHUNK + b"a;name=value\r\n0123456789\r\n0\r\n\r\n"
        for size in (1, 7, 4096, len(data)):
            content = Content(65546)
            content.frame({b"transfer-encoding": b"chunked"})
            for start in range(0, len(data), size):
                self.assertFalse(content.complete and start < len(data) - 4)
                content.take(memoryview(data)[start : start + size])
            self.assertTrue(content.complete)
            self.assertEqual(content.octets, 65546)

    def test_head(self) -> None:
        """Names are in small letters, values without space around them."""
        self.assertEqual(
            parse_head(b"HTTP/1.0 502 Bad Gateway\r\nVia:  1.1 a "),
            (502, {b"via": b"1.1 a"}),
        )

    def test_small_answer(self) -> None:
        """Only the whole right answer counts."""
        self.assertEqual(check_small(SMALL), (True, True))
        self.assertEqual(check_small(SMALL[:-1]), (False, True))
        self.assertEqual(check_small(SMALL[:20]), (False, True))
        closing = SMALL.replace(b"Server:", b"Connection: close\r\nServer:")
        self.assertEqual(check_small(closing), (True, False))
        old = SMALL.replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assertEqual(check_small(old), (True, False))

    def test_wrong_answers(self) -> None:
        """Errors and other contents are faults, not work."""
        for wrong in (
            SMALL.replace(b"200 OK", b"502 No"),
            SMALL[:-1] + b"x",
            SMALL + b"x",
        ):
            self.assertRaises(Fault, check_small, wrong)

    def test_origin(self) -> None:
        """The origin answers each request, and closes when it is asked to."""
        asked = request_head("site", 80, "/1k", [], proxy=False)
        self.assertEqual(answer(asked), (SMALL, False))
        self.assertEqual(answer(asked * 2), (SMALL * 2, False))
        closing = request_head("site", 80, "/1k", ["Connection: close"], proxy=False)
        self.assertEqual(answer(closing), (SMALL, True))

    def test_requests(self) -> None:
        """A proxy is told the whole URL (RFC 9112 section 3.2.2)."""
        asked = request_head("site", 80, "/1k", ["X: y"], proxy=True)
        self.assertTrue(asked.startswith(b"GET http://site:80/1k HTTP/1.1\r\n"))
        self.assertTrue(asked.endswith(b"\r\nX: y\r\n\r\n"))
        self.assertTrue(connect_head("site", 443).startswith(b"CONNECT site:443 "))


class CommandTests(SynchronousTestCase):
    """The command line."""

    def test_peers_by_parts_of_names(self) -> None:
        """A whole name means one peer, a part all that have it."""
        self.assertEqual([peer.name for peer in chosen(["squid"])], ["squid"])
        self.assertEqual(
            [peer.name for peer in chosen(["cntlm", "px > "])],
            ["cntlm > NTLM squid", "px > NTLM squid"],
        )
        self.assertGreater(len(chosen(None)), 10)

    def test_measures(self) -> None:
        """Only those that there are."""
        self.assertEqual(parse(["--measures=get,idle"]).measures, ["get", "idle"])
        self.patch(sys, "stderr", io.StringIO())  # where the usage goes
        self.assertRaises(SystemExit, parse, ["--measures=nonsense"])


class WrittenTests(SynchronousTestCase):
    """The whole report."""

    def test_everything_is_said(self) -> None:
        """Tables, faults, what is missing, and what else a reader must know."""
        bench = Bench(None, QUICK)  # type: ignore[arg-type]
        bench.figures.add("coda", "get_us", 50.0)
        bench.figures.add("squid", "get_us", 100.0)
        bench.figures.fault("squid", "get: status 503", 2)
        bench.figures.slow("squid", "length")
        bench.missing.append("px: pip install px-proxy")
        verdicts = [target.judge(bench.figures) for target in TARGETS]
        rows = ["no proxy", "coda", "squid"]
        results = Results(bench, describe(), {"squid": "5.7"}, rows, verdicts, 12.3)

        for rst in (False, True):
            text = written(results, rst=rst)
            for expected in (
                "50 (0.50)",
                "0.50x",
                "not measured",
                "- squid: get: status 503 (2 times)",
                "- px: pip install px-proxy",
                "- squid was slow, and is counted as far as it had come: length",
                "- squid: 5.7",
            ):
                self.assertIn(expected, text)
        self.assertEqual(json.loads(json.dumps(results.as_json()))["rows"], rows)
