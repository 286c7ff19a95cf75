"""What the server counts and times, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The server's numbers; each server has its own.

    Parameters
    ----------
    waiting : callable
        Gives the number of jobs that wait for the model.
    model : callable
        Gives the name of the model that answers.
    """

    def __init__(self, waiting: Callable[[], int], model: Callable[[], str]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "sam2_requests", "Requests, by endpoint and status.", ("endpoint", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "sam2_request_seconds", "Time to answer.", ("endpoint",), buckets=_SECONDS, registry=self._registry
        )
        self._work = Histogram(
            "sam2_model_seconds", "Time of the model, by kind of work.", ("kind",), buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batch = Histogram(
            "sam2_batch_size", "Prompts that were answered together.", buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )  # fmt: skip
        self._model = model
        self._info = Info("sam2_model", "The model that answers.", registry=self._registry)
        Gauge("sam2_waiting", "Jobs that wait for the model.", registry=self._registry).set_function(waiting)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def work(self, kind: str, seconds: float, size: int) -> None:
        """The model did a piece of work."""
        self._work.labels(kind).observe(seconds)
        if kind == "answer":
            self._batch.observe(size)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        self._info.info({"version": self._model()})
        return generate_latest(self._registry)
