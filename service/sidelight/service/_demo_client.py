"""What the demo asks of the service and of the proxy, over HTTP like anybody else."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

DEPLOYMENT = "demo/flights"

_PAUSE_S = 0.1


class DemoClient:
    """Asks again while the service is away: it may be killed and come back.

    Parameters
    ----------
    service_url, proxy_url : str
        Base addresses of the service and of the proxy's admin port.

    """

    def __init__(self, *, service_url: str, proxy_url: str) -> None:
        self._client = httpx.AsyncClient(timeout=60)
        self._service_url = service_url
        self._proxy_url = proxy_url

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """Return the JSON answer of a route of the service."""
        answer = await self._ask("GET", self._service_url + path, params=parameters)
        value: dict[str, Any] = answer.json()
        return value

    async def send(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """Send JSON to a route of the service; return its answer."""
        answer = await self._ask(method, self._service_url + path, json=body)
        value: dict[str, Any] = answer.json()
        return value

    async def metrics(self) -> "Metrics":
        """Return the metrics of service and proxy together."""
        texts = [
            (await self._ask("GET", f"{url}/metrics")).text
            for url in (self._service_url, self._proxy_url)
        ]
        return Metrics("".join(texts))

    async def wait_until(self, true: Callable[["Metrics"], bool], *, timeout_s: float) -> "Metrics":
        """Return the metrics for which a condition holds, or the last ones after the timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        metrics = await self.metrics()
        while not true(metrics) and loop.time() < deadline:
            await asyncio.sleep(_PAUSE_S)
            metrics = await self.metrics()
        return metrics

    async def _ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._client.request(method, url, **options)
                away = answer.status_code in {502, 503, 504}
                if not away or asyncio.get_running_loop().time() > deadline:
                    answer.raise_for_status()
                    return answer
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{url} does not answer")
            await asyncio.sleep(_PAUSE_S)


class Metrics:
    """Sums over the samples of a metric."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> int:
        """Return the sum of the samples with these labels, 0 without any."""
        wanted = labels.items()
        return int(
            sum(
                sample.value
                for sample in self._samples
                if sample.name == f"sidelight_{name}" and wanted <= sample.labels.items()
            )
        )
