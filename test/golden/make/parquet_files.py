"""Writes test/golden/parquet/: small Parquet files made by Apache Arrow's own writer.

    python -m venv .venv && .venv/bin/pip install pyarrow==26.0.1
    .venv/bin/python parquet_files.py ../parquet

The texts are those of the test in src/train/data/documents.test.ts; nothing of Minke is used here.
"""

import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

TEXTS = ["A whale sings.", "Größe und 鯨 🐋\nin two lines", "", "A whale sings.", "The last one."]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"id": list(range(len(TEXTS))), "text": TEXTS})
    # Two rows to a group: a reader has to go on to the next group, and through dictionaries.
    pyarrow.parquet.write_table(table, folder / "texts.parquet", row_group_size=2, compression="snappy")
    pyarrow.parquet.write_table(table.rename_columns(["id", "content"]), folder / "content.parquet")
    pyarrow.parquet.write_table(table, folder / "brotli.parquet", compression="brotli")
    provenance = {
        "made by": "test/golden/make/parquet_files.py",
        "command": "python parquet_files.py ../parquet",
        "python": sys.version.split()[0],
        "pyarrow": pyarrow.__version__,
        "date": "2026-11-22",
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


main(Path(sys.argv[1]))
