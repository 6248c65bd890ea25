"""Checkpoints are whole or not there, and loading one executes nothing."""

import math
import pickle
import zipfile

import pytest
import torch

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import load_checkpoint, write_atomically, write_checkpoint

STATE = {"weights": {"a": torch.arange(600.0).view(30, 20)}, "epoch": 3, "score": -math.inf, "history": [{"loss": 0.5}]}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (type(self.trace).touch, (self.trace,))


def refusal(path):
    with pytest.raises(InputError) as refused:
        load_checkpoint(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def file(tmp_path):
    write_checkpoint(tmp_path / "run" / "last.pt", STATE)
    return tmp_path / "run" / "last.pt"


def test_what_is_written_is_loaded_with_weights_only(file):
    for loaded in (load_checkpoint(file), torch.load(file, weights_only=True)):
        assert torch.equal(loaded["weights"]["a"], STATE["weights"]["a"])
        assert {**loaded, "weights": None} == {**STATE, "weights": None}
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


class TestAtomicity:
    def test_a_writer_that_fails_half_way_leaves_the_old_file(self, file):
        def fail(path):
            path.write_bytes(file.read_bytes()[:100])
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            write_atomically(file, fail)
        assert torch.equal(load_checkpoint(file)["weights"]["a"], STATE["weights"]["a"])
        assert [path.name for path in file.parent.iterdir()] == ["last.pt"]

    def test_a_writer_that_fails_leaves_nothing_where_nothing_was(self, tmp_path):
        with pytest.raises(ZeroDivisionError):
            write_atomically(tmp_path / "new" / "file", lambda path: path.write_text(str(1 / 0)))
        assert list((tmp_path / "new").iterdir()) == []

    def test_the_old_file_is_there_until_the_new_one_is_whole(self, file):
        old = file.read_bytes()

        def write(path):
            assert path.parent == file.parent  # a move within one folder is atomic, one between discs is not
            path.write_bytes(b"half")
            assert file.read_bytes() == old
            path.write_bytes(b"whole")

        write_atomically(file, write)
        assert file.read_bytes() == b"whole"

    def test_an_unpicklable_state_leaves_the_old_file(self, file):
        with pytest.raises((AttributeError, pickle.PicklingError)):
            write_checkpoint(file, {"weights": torch.ones(3), "function": lambda: None})
        assert load_checkpoint(file)["epoch"] == 3


class TestForeignFiles:
    def test_code_in_a_pickle_is_not_run(self, tmp_path):
        trace = tmp_path / "executed"
        plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
        plain.write_bytes(pickle.dumps({"state_dict": Evil(trace)}))
        torch.save({"state_dict": Evil(trace)}, packed)
        torch.load(packed, weights_only=False)
        assert trace.exists()  # it would have worked
        trace.unlink()
        for path in (plain, packed):
            assert refusal(path).endswith(f"got {path}, which is damaged or foreign")
        assert not trace.exists()

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
    def test_a_truncated_file(self, file, share):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        assert (
            refusal(file)
            == f"checkpoint: expected one written by this package, got {file}, which is damaged or foreign"
        )

    def test_one_wrong_byte_among_the_weights(self, file):
        """Which torch itself does not notice."""
        whole = bytearray(file.read_bytes())
        place = whole.index(STATE["weights"]["a"].numpy().tobytes()) + 1000
        whole[place] ^= 1
        file.write_bytes(whole)
        assert not torch.equal(torch.load(file, weights_only=True)["weights"]["a"], STATE["weights"]["a"])
        assert "damaged" in refusal(file)

    # Bytes for which torch's unpickler raises IndexError, struct.error, UnpicklingError; a text; an empty archive.
    @pytest.mark.parametrize("content", [b"b", b"\x80\x02.", b"K", b"G\x00", b"hello\n", b"PK\x05\x06" + bytes(18)])
    def test_something_else(self, tmp_path, content):
        path = tmp_path / "last.pt"
        path.write_bytes(content)
        assert "damaged or foreign" in refusal(path)

    def test_an_archive_of_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "last.pt", "w") as archive:
            archive.writestr("readme.txt", "no checkpoint")
        assert "damaged or foreign" in refusal(tmp_path / "last.pt")

    def test_a_tensor_instead_of_a_dictionary(self, tmp_path):
        torch.save(torch.ones(2), tmp_path / "last.pt")
        assert refusal(tmp_path / "last.pt").startswith("checkpoint: expected a dictionary in")

    def test_no_file_and_a_folder(self, tmp_path):
        assert refusal(tmp_path / "no.pt").endswith("no.pt, which does not exist")
        assert "damaged or foreign" in refusal(tmp_path)
