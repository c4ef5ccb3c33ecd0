"""Metrics: what the service counts of itself, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_MEASURES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """Counters of one service.

    Args:
        count: how many measures the collection holds.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("wembed_requests", "Requests that were answered.", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "wembed_request_seconds", "Seconds until an answer.", ["path"], buckets=_SECONDS, registry=own
        )
        self.under_way = Gauge("wembed_requests_under_way", "Requests that are not answered yet.", registry=own)
        self.encoded = Histogram(
            "wembed_batch_measures", "Measures in a call of the encoder.", buckets=_MEASURES, registry=own
        )
        self.solved = Counter("wembed_exact_distances", "Exact distances that were solved.", registry=own)
        Gauge("wembed_measures", "Measures in the collection.", registry=own).set_function(count)

    def text(self) -> bytes:
        """As Prometheus reads them."""
        return generate_latest(self._registry)
