"""Arrays in files that can be made anew: they come back as they were, or not at all, and never as an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geossl.files import read_arrays, write_arrays


def test_arrays_come_back_or_are_known_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "arrays.npz"
    assert read_arrays(path, "numbers") is None
    numbers, names = np.arange(3000) % 7, ["a", "ä"]
    write_arrays(path, numbers=numbers, names=names, text="of all")
    found, whole = read_arrays(path, "numbers", "names", "text"), path.read_bytes()
    assert found is not None
    assert found["numbers"].tolist() == numbers.tolist()
    assert (found["names"].tolist(), str(found["text"])) == (names, "of all")
    assert read_arrays(path, "numbers", "of a later version") is None
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert read_arrays(path, "numbers") is None
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        again = read_arrays(path, "numbers")  # many a byte of a zip file says nothing that is looked at
        assert again is None or again["numbers"].tolist() == numbers.tolist()
