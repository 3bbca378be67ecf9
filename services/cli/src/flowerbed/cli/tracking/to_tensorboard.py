"""TensorBoard: a folder of event files for each federation."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from flowerbed.cli.tracking.rounds import MARK, Measured, Run


class TensorBoard:
    def __init__(self, directory: str) -> None:
        self._directory = Path(directory).expanduser()
        self._writers: dict[str, SummaryWriter] = {}

    def last_round(self, run: Run) -> int:
        marked = (
            event.step
            for path in self._folder(run).glob("events.*")
            for event in events(path)
            for value in event.summary.value
            if value.tag == MARK
        )
        return max(marked, default=0)

    def log(self, run: Run, one: Measured) -> None:
        writer = self._writer(run)
        for name, value in one.values.items():
            writer.add_scalar(name, value, one.number, walltime=one.at.timestamp())
        writer.flush()

    def end(self, run: Run, status: str) -> None:
        writer = self._writers.pop(run.federation_id, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _folder(self, run: Run) -> Path:
        return self._directory / f"{run.name}-{run.federation_id}"

    def _writer(self, run: Run) -> SummaryWriter:
        if run.federation_id not in self._writers:
            # Its own name has seconds: a tracker started again at once would write over it.
            suffix = f".{time.time_ns()}"
            writer = SummaryWriter(str(self._folder(run)), filename_suffix=suffix)
            settings = "\n".join(f"- {name}: {value}" for name, value in run.settings.items())
            writer.add_text("settings", settings, 0)
            self._writers[run.federation_id] = writer
        return self._writers[run.federation_id]


def events(path: Path) -> Iterator[Event]:
    """Of one file: records of a length, its check, the bytes, and their check."""
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        at += 12
        if at + length + 4 > len(data):
            return  # whoever wrote it was killed
        yield Event.FromString(data[at : at + length])
        at += length + 4
