import sys
from typing import Any

from scrapy import Spider
from scrapy.crawler import CrawlerProcess

HANDLER = "coda_twisted.adapters.scrapy.CodaDownloadHandler"


class Titles(Spider):
    name = "titles"
    start_urls = sys.argv[2:]

    def parse(self, response: Any) -> None:
        print(response.status, response.url)


handlers = {"http": HANDLER, "https": HANDLER}
process = CrawlerProcess({"DOWNLOAD_HANDLERS": handlers, "CODA_PROXY": sys.argv[1]})
process.crawl(Titles)
process.start()
