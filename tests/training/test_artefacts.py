"""A pre-trained model as files: read back whole, readable without this package, refused in one line when damaged."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from core_only import run_python
from safetensors import SafetensorError
from training_cases import assert_same_weights, encoder_of

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import load_artefact, save_artefact

SIZES = {"n_items": 5, "dim": 8, "n_layers": 2, "n_heads": 2, "max_len": 7, "ff_dim": 16}
TOKENS = np.array(["[PAD]", "ä", "漢字", "a blank", '"'])


@pytest.fixture
def saved(tmp_path):
    encoder = encoder_of(UserEncoder, **SIZES)
    files = save_artefact(tmp_path / "model", encoder, SIZES, {"dataset": "ml-100k", "seed": 3}, TOKENS)
    return encoder, tmp_path / "model", files


def test_round_trip(saved):
    encoder, folder, files = saved
    assert sorted(folder.iterdir()) == sorted(files)
    artefact = load_artefact(folder)
    assert (artefact.encoder_arguments, artefact.card) == (SIZES, {"dataset": "ml-100k", "seed": 3})
    assert artefact.item_tokens.tolist() == TOKENS.tolist()
    assert_same_weights(artefact.weights, encoder.state_dict())
    UserEncoder(**artefact.encoder_arguments).load_state_dict(artefact.weights)


READER = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file

folder = Path(sys.argv[1])
weights = load_file(folder / "model.safetensors")
card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
tokens = json.loads((folder / "items.json").read_text(encoding="utf-8"))
assert not [name for name in sys.modules if name.startswith(("adaptssr", "recbole", "pandas"))]
print(json.dumps([card["encoder"]["dim"], len(tokens), weights["items.weight"].double().sum().item()]))
"""


def test_other_programs_read_it_with_safetensors_and_json(saved):
    encoder, folder, _ = saved
    done = run_python("-I", "-c", READER, folder)
    assert done.returncode == 0, done.stderr
    dim, n_tokens, total = json.loads(done.stdout)
    assert (dim, n_tokens) == (8, 5)
    assert total == encoder.items.weight.double().sum().item()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"x" * 100),
        ("model.safetensors", None),
        ("model.json", b""),
        ("model.json", b"[]"),
        ("model.json", b"{}"),
        ("model.json", b'{"encoder": 3}'),
        ("model.json", b"\xff\xfe"),
        ("items.json", b"{"),
        ("items.json", b"[]"),
        ("items.json", b'["[PAD]", ["a"], "b", "c", "d"]'),
        ("items.json", b'["[PAD]", "a", "b", "c", "d", "e"]'),
    ],
)
def test_a_damaged_file_gives_one_line(saved, name, content):
    _, folder, _ = saved
    (folder / name).write_bytes((folder / name).read_bytes()[:-5] if content is None else content)
    with pytest.raises(InputError, match=r"^model: cannot read the files in ") as refused:
        load_artefact(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "items.json"])
def test_a_missing_file_gives_one_line(saved, name):
    _, folder, _ = saved
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"^model: expected a folder with {name}, got .* \(has its pre-training"):
        load_artefact(folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "items.json", "MODEL_CARD.md"])
def test_a_full_disk_leaves_the_model_that_is_there(saved, name, monkeypatch):
    _, folder, _ = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if name == "model.safetensors":  # whose library puts files of its own in place of links

        def full(*_args, **_options):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("safetensors.torch.save_file", full)
    else:
        (folder / f".{name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\); what") as refused:
        save_artefact(folder, encoder_of(UserEncoder, seed=1, **SIZES), SIZES, {"dataset": "other"}, TOKENS)
    assert refused.value.filename == str(folder / name)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
