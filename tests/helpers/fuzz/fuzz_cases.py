"""What stands in the place of a file: contents that are not what its name says, some of which would execute code."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

MARK = "executed"  # a folder that only code from a file would make


class Planted:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (MARK,)


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _zip_of_zeros(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.csv", bytes(64 << 20))


FOREIGN: dict[str, bytes] = {
    "an empty file": b"",
    "an empty line": b"\n",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40),
    "NUL bytes": bytes(100),
    "a byte-order mark alone": b"\xef\xbb\xbf",
    "UTF-16": "u a b\n".encode("utf-16"),
    "Latin-1": b"u \xe9\n",
    "a pickle that makes a folder": pickle.dumps(Planted()),
    "a .npy of pickled objects": _saved(lambda file: np.save(file, np.array([Planted()]), allow_pickle=True)),
    "torch.save of such a pickle": _saved(lambda file: torch.save({"state_dict": Planted()}, file)),
    "torch.save of such a pickle, the old form": _saved(
        lambda file: torch.save({"state_dict": Planted()}, file, _use_new_zipfile_serialization=False)
    ),
    "YAML with a Python tag": f'epochs: !!python/object/apply:os.mkdir ["{MARK}"]\n'.encode(),
    "a zip of 64 MiB of zeros": _saved(_zip_of_zeros),
    "100,000 brackets": b"[" * 100_000,
    "5,000 digits": b"1" * 5000,
    "JSON of another kind": b'{"a": 1}',
    "a line of 2 MB": b"x" * 2_000_000,
}
PLACES = ("a folder in its place", "no file", "a link to itself")


def spoil(path: Path, what: str) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    if what in FOREIGN:
        path.write_bytes(FOREIGN[what])
    elif what == "a folder in its place":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path.name)
