"""The metrics of several web processes behind one port: whichever is asked tells the sum of all.

Each process counts in files of one folder (prometheus-client's own way), named not after its id but
after its place: what is started in the place of a process that died goes on where that one ended.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric, ProcessCollector, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

# prometheus-client's own, which it reads when it is imported; set, too, for a server of somebody
# else's that runs several processes behind one port.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PLACE_VARIABLE = "MAILROOM_WEB_PLACE"


@contextlib.contextmanager
def counted_together() -> Iterator[Path]:
    """A new folder in which processes count, for as long as they run."""
    with tempfile.TemporaryDirectory(
        prefix="mailroom-metrics-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def environment_of(folder: Path, place: int) -> Mapping[str, str]:
    """By which a process knows where to count."""
    return {FOLDER_VARIABLE: str(folder), PLACE_VARIABLE: str(place)}


def take_place() -> None:
    """Have this process count in its place, if it has one. Call it before a metric is made."""
    if place := os.environ.get(PLACE_VARIABLE):
        values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
        (Path(os.environ[FOLDER_VARIABLE]) / f"{place}.pid").write_text(str(os.getpid()))


def counted_here() -> CollectorRegistry:
    """What this process counted, with what the others did behind the same port."""
    if FOLDER_VARIABLE not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Processes(Path(os.environ[FOLDER_VARIABLE])))
    return registry


class _Processes(Collector):
    """Memory, processor time and open files of each process that lives, told apart by its place:
    summed up, the processor time would fall whenever a process dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for file in sorted(self._folder.glob("*.pid")):
            with contextlib.suppress(OSError, ValueError):
                process = ProcessCollector(pid=partial(int, file.read_text()), registry=None)
                for found in process.collect():
                    metric = Metric(found.name, found.documentation, found.type)
                    family = families.setdefault(found.name, metric)
                    for sample in found.samples:
                        family.add_sample(sample.name, {"process": file.stem}, sample.value)
        yield from families.values()
