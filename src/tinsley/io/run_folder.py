"""The folder of a run over a catalogue: finished chunks while it lasts, then one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq

from tinsley.errors import InputError
from tinsley.io.results import make_folder, new_file, write_json, write_parquet

Columns = Mapping[str, np.ndarray]
Chunk = TypeVar("Chunk", bound=Sized)

_RUN, _TABLE, _PARTS, _DRAWS = "run.json", "galaxies.parquet", "parts", "draws"


class RunFolder:
    """A run's results on disk, of which each file is whole or not there.

    While the run lasts: `run.json` (its settings), `parts/` and `draws/`, a file a chunk each. At
    its end: `galaxies.parquet` in the place of `parts/`, and `manifest.json`.
    """

    def __init__(self, folder: Path, setup: dict[str, Any], metadata: dict[str, str]) -> None:
        """Begin a run, or open one that was begun with the same settings.

        Args:
            folder: Made if it is not there.
            setup: The settings that must be the same for the run to be gone on with; "input", the
                catalogue's path, may differ.
            metadata: Words for the schema of each Parquet file.

        Raises:
            InputError: The folder can not be made, or holds other results.
        """
        self.folder, self._metadata = make_folder(folder), metadata
        if (folder / _RUN).exists():
            self._refuse_other_run(setup)
        elif any((folder / name).exists() for name in (_TABLE, _PARTS, _DRAWS)):
            raise self._holds("results that do not say what run they are of")
        else:
            write_json(folder / _RUN, setup)

    def has(self, chunk: int) -> bool:
        """True if a chunk is finished."""
        return (self.folder / _TABLE).exists() or self._part(chunk).exists()

    def fill(
        self,
        chunks: Iterable[Chunk],
        infer: Callable[[Chunk], tuple[Columns, Columns | None]],
        on_chunk: Callable[[int], None],
    ) -> None:
        """Infer the chunks that are not finished.

        Args:
            chunks: All chunks of the run, in order.
            infer: A chunk's rows, and its draws if there are any.
            on_chunk: Called with the number of rows after each chunk, computed or found.
        """
        for number, chunk in enumerate(chunks):
            if not self.has(number):
                self.save(number, *infer(chunk))
            on_chunk(len(chunk))

    def save(self, chunk: int, rows: Columns, draws: Columns | None) -> None:
        """Write a chunk's rows, and before them its draws if there are any."""
        for path, columns in (
            (self._file(_DRAWS, "draws", chunk), draws),
            (self._part(chunk), rows),
        ):
            if columns is not None:
                path.parent.mkdir(exist_ok=True)
                write_parquet(path, columns, self._metadata)

    def join(self) -> dict[str, int]:
        """Make one table of the chunks; return how many of its rows have each status."""
        table = self.folder / _TABLE
        if not table.exists():
            parts = sorted((self.folder / _PARTS).glob("part-*.parquet"))
            schema = pq.read_schema(parts[0])
            with new_file(table) as file, pq.ParquetWriter(file, schema) as writer:
                for part in parts:
                    writer.write_table(pq.read_table(part).cast(schema))
        shutil.rmtree(self.folder / _PARTS, ignore_errors=True)
        status = pq.read_table(table, columns=["status"])["status"]
        words, counts = np.unique(status.to_numpy(zero_copy_only=False), return_counts=True)
        return {str(word): int(count) for word, count in zip(words, counts, strict=True)}

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write what the run was and how it ended."""
        write_json(self.folder / "manifest.json", manifest)

    def _part(self, chunk: int) -> Path:
        return self._file(_PARTS, "part", chunk)

    def _file(self, kind: str, name: str, chunk: int) -> Path:
        return self.folder / kind / f"{name}-{chunk:06d}.parquet"

    def _refuse_other_run(self, setup: dict[str, Any]) -> None:
        try:
            found = json.loads((self.folder / _RUN).read_text())
            changed = sorted(key for key in setup if found.get(key) != setup[key])
        except (ValueError, AttributeError) as problem:
            raise self._holds(f"a {_RUN} that can not be read") from problem
        changed = [key for key in changed if key != "input"]
        if changed:
            raise self._holds(f"a run with another {', '.join(changed)}")

    def _holds(self, what: str) -> InputError:
        return InputError(
            f"{self.folder} holds {what}; choose another --out, or remove it to begin anew."
        )
