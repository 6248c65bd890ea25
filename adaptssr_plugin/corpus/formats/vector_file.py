"""Vectors by name, as Parquet: written piece by piece; the file is complete or absent."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError


class VectorWriter:
    """Writes a column of names and a column ``vector``, a list of d float32 numbers for each.

    Use it as a context. A temporary file is moved into place at the end; after an exception, or without any vector,
    nothing has changed. Needs pyarrow.

    Args:
        path: the file, replaced if it is there; its folder is made if missing.
        column: what the column of names is called.
        dim: d.
        about: what stands in the file's metadata.
    """

    def __init__(self, path: Path, column: str, dim: int, about: Mapping[str, str] | None = None) -> None:
        if path.is_dir():
            raise InputError(f"output: expected a file, got the folder {path}")
        self.path = path
        self.rows = 0
        self._column = column
        self._dim = dim
        self._about = dict(about or {})
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer: Any = None

    def __enter__(self) -> "VectorWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, names: Any, vectors: npt.NDArray[np.float32]) -> None:
        """Write some rows.

        Args:
            names: (n,), a ``pyarrow.Array`` of one type in all calls, or strings.
            vectors: ``(n, d)`` float32.

        Raises:
            InputError: names of another type than those before.
        """
        import pyarrow as pa
        from pyarrow import parquet

        names = names if isinstance(names, pa.Array) else pa.array(names, pa.string())
        if self._writer is None:
            kinds = [(self._column, names.type), ("vector", pa.list_(pa.float32(), self._dim))]
            schema = pa.schema(kinds, metadata=self._about)
            # Numbers of a vector hardly ever repeat: a dictionary of them would be larger than they are.
            self._writer = parquet.ParquetWriter(self._temporary, schema, use_dictionary=False, compression="zstd")
        schema = self._writer.schema
        if names.type != schema.field(0).type:
            raise InputError(f"{self._column}: expected {schema.field(0).type} as before, got {names.type}")
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        columns = [names, pa.FixedSizeListArray.from_arrays(flat, self._dim)]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        self.rows += len(names)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if kind is None and self._writer is not None:
                with self._temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
