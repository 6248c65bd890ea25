"""Files that are not what their name says, and valid files damaged at random: one line, and nothing executed."""

import random
from pathlib import Path

import pytest
from fuzz_cases import FOREIGN, MARK, PLACES, spoil
from fuzz_readers import COLD, READERS
from time_limits import time_limit

from adaptssr_plugin.errors import InputError

_LONGEST = 30  # seconds for one file: a hang
_SLOW = {"100,000 brackets", "a line of 2 MB"}  # for PyYAML
# What stands in the place of a value.
_ODD = [b"", b"-1", b"nan", b"inf", b"1e999", b"9" * 40, b"\xef\xbb\xbf", b"\0", b'"', b"None", b"[PAD]", b"\xff", b"0",
        "x\u2028y".encode(), b"!!python/object/apply:os.mkdir [executed]", b"\r", b"\x1b[2J"]  # fmt: skip


def read_or_refused(reader):
    """Read; gives what an InputError said, which is one line that a terminal can show, or None."""
    try:
        with time_limit(_LONGEST):
            reader.read(Path())
    except InputError as error:
        said = str(error)
        assert said
        assert said.isprintable()
        assert len(said) <= 2500
        return said
    finally:
        assert not Path(MARK).exists()
    return None


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Give empty working directories, one after the other."""
    number = 0

    def make():
        nonlocal number
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)

    return make


NOTHING, NO_FILE = ["an empty file", "an empty line", "a byte-order mark alone"], ["no file", "a link to itself"]
USERS = ["YAML with a Python tag", "JSON of another kind"]  # several words in each line
ACCEPTED = {
    "read_sequence_lines": USERS,
    "convert lines": USERS,
    "convert lines --corpus": USERS,
    # Any UTF-8 text is users.
    "known_lines": [*NOTHING, *USERS, "NUL bytes", "100,000 brackets", "5,000 digits", "a line of 2 MB"],
    "convert recbole": NO_FILE,  # of users
    "LastTwo.load": NO_FILE,
    "options in YAML": NOTHING,
    "RecBole's options in YAML": [*NOTHING, "JSON of another kind"],
}


@pytest.mark.parametrize("reader", READERS.values(), ids=lambda reader: reader.name)
def test_other_contents(reader, fresh):
    fresh()
    count = len(reader.make(Path()))
    assert read_or_refused(reader) is None
    accepted = []
    for number in range(count):
        for what in (*FOREIGN, *PLACES):
            if "YAML" in reader.name and what in _SLOW and reader.heavy:
                continue
            fresh()
            spoil(reader.make(Path())[number], what)
            if read_or_refused(reader) is None:
                accepted.append(what)
    assert sorted(accepted) == sorted(ACCEPTED.get(reader.name, []))


TEXTS = [
    ("read_interactions", "\x1b[2Juser\titem\n"),
    ("read_cold_rows", COLD + f"u\tx\t{'9' * 40}\n"),
    ("convert two-domains", f"u 1 {'9' * 40}\n"),
    ("options in YAML", "learning_rate: .nan\n"),
]


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_odd_texts(name, text, fresh):
    fresh()
    READERS[name].make(Path())[0].write_text(text, encoding="utf-8")
    assert read_or_refused(READERS[name]) is not None


def damaged(data, chance):
    """Damage a file in one of several ways."""
    place, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    lines = data.split(b"\n")
    row = chance.randrange(len(lines))
    separator = next((one for one in (b"\t", b",", b" ", b": ") if one in lines[row]), b" ")
    values = lines[row].split(separator)
    how = chance.randrange(8)
    if how == 0:
        return data[:place]
    if how == 1:
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(changed)
    if how == 2:
        return data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]
    if how == 3:
        return data[:place] + data[end:]
    if how == 4:
        del lines[row]
    elif how == 5:
        lines.insert(chance.randrange(len(lines)), lines[row])
    elif how == 6:
        values[chance.randrange(len(values))] = chance.choice(_ODD)
        lines[row] = separator.join(values)
    else:
        chance.shuffle(values)
        lines[row] = separator.join(values)
    return b"\n".join(lines)


@pytest.mark.parametrize("reader", READERS.values(), ids=lambda reader: reader.name)
@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.slow), 0.2], ids=["all", "sample"])
def test_damaged_at_random(reader, fresh, share):
    chance = random.Random(reader.name)
    # Those that wait for the disk have fewer.
    times = 15 if reader.heavy else 50 if "corpus" in reader.name else 200 if reader.text else 100
    said = []
    for _ in range(max(10, round(share * times))):
        fresh()
        path = chance.choice(reader.make(Path()))
        path.write_bytes(damaged(path.read_bytes(), chance))
        said.append(read_or_refused(reader))
    assert any(said)
    assert len(set(said)) > 2 or not reader.text
