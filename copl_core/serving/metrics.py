"""Counts of a running server, as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from threading import Lock

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper bounds, seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: Counter[tuple[str, int]] = Counter()  # (route, status)
        self._seconds: Counter[tuple[str, float]] = Counter()  # (route, upper bound), cumulative
        self._sum: Counter[str] = Counter()  # seconds by route
        self._texts = 0
        self._champions: dict[int, str] = {}  # study id → snapshot that answered last
        self._changes = 0

    def request(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[route, status] += 1
            self._sum[route] += seconds  # type: ignore[assignment]  # a Counter adds numbers of any kind
            for bound in BUCKETS:
                self._seconds[route, bound] += seconds <= bound

    def answered(self, study_id: int, snapshot: str, texts: int) -> None:
        """Note which snapshot answered about how many texts."""
        with self._lock:
            self._texts += texts
            self._changes += self._champions.get(study_id, snapshot) != snapshot
            self._champions[study_id] = snapshot

    def text(self) -> str:
        with self._lock:
            lines = [
                *head("copl_requests_total", "counter", "Requests by route and status."),
                *(
                    f'copl_requests_total{{route="{r}",status="{s}"}} {n}'
                    for (r, s), n in sorted(self._requests.items())
                ),
                *head("copl_request_seconds", "histogram", "Seconds from the body to the answer."),
                *self._histogram(),
                *head("copl_texts_total", "counter", "Responses that were given a reward."),
                f"copl_texts_total {self._texts}",
                *head("copl_champion_changes_total", "counter", "Times that the answering snapshot changed."),
                f"copl_champion_changes_total {self._changes}",
                *head("copl_snapshot_info", "gauge", "The snapshot that answered last, by study."),
                *(f'copl_snapshot_info{{study="{s}",snapshot="{v}"}} 1' for s, v in sorted(self._champions.items())),
            ]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> list[str]:
        lines = []
        for route in sorted(self._sum):
            count = sum(n for (own, _), n in self._requests.items() if own == route)
            for bound in BUCKETS:
                lines.append(
                    f'copl_request_seconds_bucket{{route="{route}",le="{bound}"}} {self._seconds[route, bound]}'
                )
            lines.append(f'copl_request_seconds_bucket{{route="{route}",le="+Inf"}} {count}')
            lines.append(f'copl_request_seconds_sum{{route="{route}"}} {self._sum[route]:.6f}')
            lines.append(f'copl_request_seconds_count{{route="{route}"}} {count}')
        return lines


def head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"
