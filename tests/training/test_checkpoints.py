"""Checkpoints are whole or not there, and loading one executes nothing."""

import errno
import math
import os
import pickle
import signal
import threading
import zipfile

import pytest
import torch
from refusals import refusal_of

from adaptssr_plugin.errors import DamagedCheckpointError, InputError
from adaptssr_plugin.training import (
    LastTwo,
    RunFingerprint,
    StopRequest,
    load_checkpoint,
    write_atomically,
    write_checkpoint,
)
from adaptssr_plugin.training.checkpoints import system_error_of, write_together

STATE = {"weights": {"a": torch.arange(600.0).view(30, 20)}, "epoch": 3, "score": -math.inf, "history": [{"loss": 0.5}]}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (type(self.trace).touch, (self.trace,))


def refusal(path):
    return refusal_of(load_checkpoint, path)


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


def text(content):
    return lambda path: path.write_text(content)


def fail(path):
    path.write_text("half")
    raise OSError(errno.ENOSPC, "full", str(path))


class TestFilesThatBelongTogether:
    @pytest.fixture
    def folder(self, tmp_path):
        write_together({tmp_path / "a": text("old a"), tmp_path / "b": text("old b"), tmp_path / "card": text("old")})
        return tmp_path

    def contents(self, folder):
        return {path.name: path.read_text() for path in folder.iterdir()}

    def test_are_all_replaced(self, folder):
        write_together({folder / "a": text("new a"), folder / "b": text("new b"), folder / "card": text("new")})
        assert self.contents(folder) == {"a": "new a", "b": "new b", "card": "new"}

    @pytest.mark.parametrize("place", range(3))
    def test_or_none_is(self, folder, place):
        writers = [text("new"), text("new"), text("new")]
        writers[place] = fail
        with pytest.raises(OSError, match=r"cannot be written \(No space left on device\); what was there") as full:
            write_together({folder / name: write for name, write in zip(("a", "b", "card"), writers, strict=True)})
        assert full.value.filename == str(folder / ("a", "b", "card")[place])
        assert self.contents(folder) == {"a": "old a", "b": "old b", "card": "old"}

    def test_the_last_is_gone_while_others_are_replaced(self, folder, monkeypatch):
        replace, seen = type(folder).replace, []

        def look(path, target):
            seen.append((target.name, (folder / "card").exists()))
            return replace(path, target)

        monkeypatch.setattr(type(folder), "replace", look)
        write_together({folder / "a": text("new"), folder / "card": text("new")})
        assert seen == [("a", False), ("card", False)]

    def test_what_was_there_is_kept_elsewhere(self, folder):
        for number in range(3):
            write_atomically(folder / "card", text(str(number)), keep=folder / "before")
        assert self.contents(folder) == {"a": "old a", "b": "old b", "card": "2", "before": "1"}


class TestFullDisk:
    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")  # noqa: PTH110
    def test_torch_gives_the_systems_reason(self, file):
        with pytest.raises(OSError, match="No space left on device") as full:
            write_checkpoint(file, {**STATE, "large": torch.zeros(10**6)}, keep=file.with_name("previous.pt"))
        assert full.value.errno == errno.ENOSPC
        assert full.value.filename == str(file)

    @pytest.fixture
    def file(self, file, monkeypatch):
        """One beside which nothing more can be written."""
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.symlink_to("/dev/full")
        yield file
        assert [path.name for path in file.parent.iterdir()] == ["last.pt"]
        assert load_checkpoint(file)["epoch"] == 3

    @pytest.mark.parametrize(
        ("words", "number"), [("I/O error: No space left on device (os error 28)", 28), ("invalid header", None)]
    )
    def test_the_words_of_another_library(self, words, number):
        error = system_error_of(ValueError(words))
        assert (error.errno if isinstance(error, OSError) else None) == number


class TestLastTwo:
    @pytest.fixture
    def kept(self, tmp_path):
        kept = LastTwo(tmp_path)
        for epoch in range(3):
            kept.write({"epoch": epoch})
        return kept

    def load(self, folder):
        said = []
        path, state = LastTwo(folder).load("cpu", said.append)
        return path.name, state["epoch"], said

    def test_are_the_last_two(self, kept, tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
        assert [load_checkpoint(path)["epoch"] for path in (kept.last, kept.previous)] == [2, 1]
        assert self.load(tmp_path) == ("last.pt", 2, [])
        assert kept.newest == kept.last

    def test_none_and_one(self, tmp_path):
        assert LastTwo(tmp_path / "no").load("cpu", print) is None
        assert LastTwo(tmp_path).newest is None
        LastTwo(tmp_path).write({"epoch": 0})
        assert self.load(tmp_path) == ("last.pt", 0, [])

    def test_between_two_moves(self, kept, tmp_path):
        kept.last.unlink()
        assert self.load(tmp_path) == ("previous.pt", 1, [])  # nothing is wrong
        assert kept.newest == kept.previous

    @pytest.mark.parametrize("load_first", [True, False])
    def test_a_damaged_one_never_takes_the_place_of_a_whole_one(self, kept, tmp_path, load_first):
        kept.last.write_bytes(b"half")
        again = LastTwo(tmp_path)
        if load_first:
            said = []
            assert again.load("cpu", said.append)[1]["epoch"] == 1
            assert said[0].endswith(f"damaged or foreign; going on from {kept.previous}, the one before it")
        again.write({"epoch": 5})
        assert [load_checkpoint(path)["epoch"] for path in (kept.last, kept.previous)] == [5, 1]
        again.write({"epoch": 6})
        assert [load_checkpoint(path)["epoch"] for path in (kept.last, kept.previous)] == [6, 5]

    def test_two_damaged_ones(self, kept, tmp_path):
        for path in (kept.last, kept.previous):
            path.write_bytes(b"half")
        with pytest.raises(DamagedCheckpointError, match=r"last\.pt, which .*, as is the one before it; remove"):
            LastTwo(tmp_path).load("cpu", print)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_one_that_may_not_be_read_is_not_passed_over(self, kept, tmp_path):
        kept.last.chmod(0)
        with pytest.raises(InputError, match=r"^checkpoint: cannot read .*last\.pt: Permission denied$"):
            LastTwo(tmp_path).load("cpu", print)


class TestRunFingerprint:
    FINGERPRINT = RunFingerprint(
        "mlm", {"recipe": {"seed": 1, "dim": 8}, "source": {"dataset": "here"}}, {"torch": "2.4"}
    )

    def refusal(self, **state):
        return refusal_of(
            self.FINGERPRINT.check, "last.pt", {"state_dict": {}, **self.FINGERPRINT.state_dict(), **state}
        )

    def test_its_own_is_taken(self):
        self.FINGERPRINT.check("last.pt", {"state_dict": {}, **self.FINGERPRINT.state_dict()})

    def test_data_may_move_and_parts_may_be_added_later(self):
        moved = {**self.FINGERPRINT.config, "source": {"dataset": "there"}, "batches": {"batch_size": 2}}
        self.FINGERPRINT.check("last.pt", {"state_dict": {}, **self.FINGERPRINT.state_dict(), "config": moved})

    def test_another_is_refused(self):
        assert self.refusal(stage="own") == "checkpoint: expected one of stage mlm in last.pt, got another"
        recipe = self.FINGERPRINT.config["recipe"]
        others = [({**recipe, "seed": 2}, "seed: 2 there, 1 here"), ({"seed": 1}, "dim: None there, 8 here"),
                  ({**recipe, "more": 3}, "more: 3 there, None here")]  # fmt: skip
        for other, said in others:
            config = {**self.FINGERPRINT.config, "recipe": other}
            assert self.refusal(config=config) == f"checkpoint: last.pt is of another run ({said})"
        for foreign in ({"weights": {}}, {"state_dict": {}}, {"state_dict": {}, "config": {"model": "SASRec"}}):
            with pytest.raises(InputError, match=r"^checkpoint: expected one of stage mlm in last.pt, got another$"):
                self.FINGERPRINT.check("last.pt", foreign)

    def test_versions(self):
        assert self.FINGERPRINT.changed_versions(self.FINGERPRINT.state_dict()) == []
        assert self.FINGERPRINT.changed_versions({"versions": {"torch": "2.5", "other": "1"}}) == ["torch"]


class TestStopRequest:
    def test_notes_sigterm_and_puts_its_handling_back(self):
        with StopRequest() as stop:
            assert not stop.noted
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.noted
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def test_leaves_a_callers_handler_alone(self):
        came = []
        signal.signal(signal.SIGTERM, lambda *_: came.append(1))
        try:
            with StopRequest() as stop:
                os.kill(os.getpid(), signal.SIGTERM)
            assert (came, stop.noted) == ([1], False)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def test_does_nothing_in_another_thread_or_unasked(self):
        handlers = []

        def look():
            for listens in (True, False):
                with StopRequest(listens):
                    handlers.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        with StopRequest(listens=False):
            handlers.append(signal.getsignal(signal.SIGTERM))
        assert handlers == [signal.SIG_DFL] * 3


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
