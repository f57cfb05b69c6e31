"""The port at which a worker process shows its metrics; a web process has a route for them."""

import errno

import structlog
from prometheus_client import start_http_server

from app.settings import Settings

log = structlog.get_logger(__name__)

# More worker processes than one machine runs.
METRICS_PORTS = 100


def show_metrics(settings: Settings) -> None:
    """Serve the metrics of this process. Failing to is no reason not to process email."""
    first = settings.metrics_port
    if not first:
        return
    for port in range(first, min(first + METRICS_PORTS, 65_536)):
        try:
            start_http_server(port, settings.host)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                log.error("metrics_not_shown", port=port, error=error.strerror)
                return
        else:
            log.info("metrics_shown", host=settings.host, port=port)
            return
    log.error("metrics_not_shown", port=first, error="no port is free")
