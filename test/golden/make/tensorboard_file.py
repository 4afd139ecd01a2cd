"""Writes test/golden/tensorboard/: an event file made by TensorBoard's own record writer and protobuf classes.

    python -m venv .venv && .venv/bin/pip install tensorboard==2.21.0 protobuf==7.36.2
    .venv/bin/python tensorboard_file.py ../tensorboard

The scalars are those of the test in src/run/tensorboard.test.ts; nothing of Minke is used here.
"""

import json
import sys
from pathlib import Path

import google.protobuf
import tensorboard
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

SCALARS = [
    (1, 1000.25, [("validation/loss", 5.5), ("validation/bits_per_byte", 1.9375)]),
    (300, 1001.5, [("validation/loss", 3.141592653589793), ("validation/bits_per_byte", 1.1)]),
    (
        1_000_000_007,
        1002.0,
        [("train/loss", 1e-30), ("train/bits_per_byte", 0.0), ("train/next_next_token_accuracy", 0.25)],
    ),
]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "case.tfevents"
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=999.0, file_version="brain.Event:2").SerializeToString())
        for step, wall_time, values in SCALARS:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
            writer.write(Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())
        writer.flush()
    provenance = {
        "made by": "test/golden/make/tensorboard_file.py",
        "command": "python tensorboard_file.py ../tensorboard",
        "python": sys.version.split()[0],
        "tensorboard": tensorboard.__version__,
        "protobuf": google.protobuf.__version__,
        "date": "2026-11-21",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


main(Path(sys.argv[1]))
