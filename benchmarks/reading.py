"""How long a dataset of 100,000 rows takes to be read, checked and split: ``python benchmarks/reading.py``."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from policyopt.data.dataset import load_dataset_task
from policyopt.data.files import read

ROWS = 100_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w") as file:
            for i in range(ROWS):
                row = {"question": f"What is {i} plus {i}? {'word ' * 60}", "answer": str(2 * i), "extra": {"index": i}}
                file.write(json.dumps(row) + "\n")
        print(f"{ROWS:,} rows, {path.stat().st_size / 1e6:.0f} MB")
        for name, work in (
            ("read", lambda: read(str(path), path.name)),
            ("whole", lambda: load_dataset_task(str(path))),
        ):
            start = time.process_time()
            work()
            print(f"{name:<6}{time.process_time() - start:.1f} s of one core")


if __name__ == "__main__":
    main()
