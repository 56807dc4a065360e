import sys
from typing import Any

from twisted.internet.task import react

from coda_twisted.download import download


async def main(reactor: Any, proxy: str, url: str, path: str) -> None:
    def show(size: int, total: int | None) -> None:
        print(f"{size} of {total or 'unknown'}")

    result = await download(
        reactor, url, path=path, proxy=proxy, resume=True, timeout=60, progress=show
    )
    print(result.status, result.path, result.etag)


react(main, sys.argv[1:])
