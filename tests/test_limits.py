from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from copl_core.limits import RateLimiter


@example(1, [(4.868214520919317, 1), (0.0, 1)])  # 60 seconds later, a bucket of 0.999…
@given(st.integers(1, 100), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 10)), max_size=60))
def test_no_minute_holds_more_than_a_full_bucket_and_what_flows_into_it(per_minute, asks):
    now = 0.0
    limiter, taken = RateLimiter(lambda: now), []
    for pause, cost in asks:
        now += pause
        wait = limiter.take(1, per_minute, cost)
        if not wait:
            taken.append((now, cost))
        elif cost <= per_minute:
            assert limiter.take(1, per_minute, cost)  # a refused request takes nothing
            now += wait
            assert not limiter.take(1, per_minute, cost)  # the named time is enough
            taken.append((now, cost))
    for start, _ in taken:
        assert sum(cost for at, cost in taken if start <= at < start + 60) <= 2 * per_minute + 1e-6


def test_tokens_have_buckets_of_their_own():
    limiter = RateLimiter(lambda: 0.0)
    assert limiter.take(1, 1) == 0 and limiter.take(1, 1) == 60 and limiter.take(2, 1) == 0


def test_who_only_looks_takes_nothing():
    limiter = RateLimiter(lambda: 0.0)
    assert [limiter.wait(1, 1), limiter.wait(1, 1), limiter.take(1, 1), limiter.wait(1, 1)] == [0, 0, 0, 60]


def test_buckets_that_are_full_again_are_forgotten():
    now = 0.0
    limiter = RateLimiter(lambda: now)
    for whose in range(25_000):
        now += 0.02  # a bucket is full after a minute: 3,000 of them are not
        limiter.take(whose, 30)
    assert len(limiter._buckets) <= 10_100 and limiter.take(24_999, 30, 30) > 0
