"""What a search costs where there is a past: the first one, which makes the index, and each further one."""

import time

from jobs.store.search_index import JobFilter, SearchIndex
from tests.benchmarks.watched import median_ms, told
from tests.support.engines import house
from tests.support.long_form import LONG
from tests.support.past import make_past

PAST = 100_000 if LONG else 10_000
CALLS = 15


def test_a_search_of_a_long_past():
    with house() as built:
        make_past(built.paths.home, PAST)
        index = SearchIndex(built.paths.search_index, built.paths.database)
        began = time.monotonic()
        while index.catch_up(3.0):
            pass
        told(f"{PAST} jobs, first search", f"{time.monotonic() - began:.1f} s", "once")

        def search() -> None:
            index.catch_up(3.0)
            index.find([f"{'t' * 400}"], JobFilter(), limit=20)

        told(f"{PAST} jobs, each further search", f"{median_ms(search, CALLS):.0f} ms", "< 1,000 ms")
        size = built.paths.search_index.stat().st_size / built.paths.database.stat().st_size
        told(f"{PAST} jobs, size of the index", f"{size:.2f} of the database", "<= 1.5")
