"""
Look for inputs that break a target, with atheris; see :mod:`tests.fuzz`.

The last line for each target tells how many inputs were tried, and how many edges of
the package's code those reached.  An input that breaks something is kept, and
the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
NAMES = sorted(path.name for path in CORPUS.iterdir())
_EDGES = re.compile(r"cov: (\d+)")
_INPUTS = re.compile(r"stat::number_of_executed_units: +(\d+)")


def main() -> int:
    """Fuzz the targets one after another, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", type=Path, help="where to keep inputs")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*", metavar="target", choices=[*NAMES, []])
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install 'coda_twisted[fuzz]'")
    kept = arguments.keep or Path(tempfile.mkdtemp(prefix="coda-fuzz-"))
    if arguments.alone:
        [target] = arguments.target
        fuzz(target, arguments.seconds, kept)
    broken = [
        target
        for target in arguments.target or NAMES
        if not run(target, arguments.seconds, kept)
    ]
    print(f"inputs are in {kept}")
    return 1 if broken else 0


def run(target: str, seconds: int, kept: Path) -> bool:
    """Fuzz one target, tell how it went, and whether nothing broke."""
    command = [sys.executable, "-m", "tests.fuzz", "--alone", target]
    command += ["--seconds", str(seconds), "--keep", str(kept)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    output = done.stdout + done.stderr
    inputs = _INPUTS.findall(output) or ["?"]
    edges = _EDGES.findall(output) or ["?"]
    verdict = "BROKEN" if done.returncode else "nothing broke"
    print(
        f"{target}: {inputs[-1]} inputs in {time.monotonic() - began:.0f} s, "
        f"{edges[-1]} edges, {verdict}",
        flush=True,
    )
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-1500:], sep="\n", flush=True)
    return done.returncode == 0


def fuzz(target: str, seconds: int, kept: Path) -> None:
    """Fuzz one target; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["coda_twisted"]):
        from tests.fuzz.targets import TARGETS
    logging.disable(logging.CRITICAL)
    found = kept / target
    found.mkdir(parents=True, exist_ok=True)
    options = [
        *(f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048"),
        *("-max_len=4096", "-print_final_stats=1", f"-artifact_prefix={kept}/"),
        *(str(found), str(CORPUS / target)),
    ]
    atheris.Setup([sys.argv[0], *options], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
