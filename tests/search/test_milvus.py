"""Milvus Lite answers as the exact search does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="the extra `search` is not installed")
pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")

from geossl.errors import SettingsError, StoreError
from geossl.search import milvus
from geossl.search.milvus import LITE, Milvus, address
from geossl.search.nearest import Exact, places_of, question
from geossl.search.settings import SearchSettings
from geossl.search.table import Embeddings, Where

from .conftest import rows
from .test_nearest import FILTERS, key


def compare(made: Embeddings, index: Milvus, where: Where, most: int) -> None:
    places = places_of(made, where)
    for chosen in (places[[9]], places[40:70]):
        asking = question(made, chosen, where)
        exact, found = Exact(made).nearest(asking, where, most), index.nearest(asking, where, most)
        assert [key(hit) for hit in found] == [key(hit) for hit in exact]
        np.testing.assert_allclose([h.similarity for h in found], [h.similarity for h in exact], atol=1e-5)
        assert [(h.time, round(h.clear, 5)) for h in found] == [(h.time, round(h.clear, 5)) for h in exact]


@pytest.mark.parametrize("most", [1, 1000])
@pytest.mark.parametrize("limit", [3, milvus.MOST])
def test_answers_are_the_exact_ones(made: Embeddings, most: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "MOST", limit)  # few at a time: it has to ask again and again
    with Milvus(LITE, made) as index:
        index.sync()
        for where in FILTERS:
            compare(made, index, where, most)


def test_only_what_changed_is_written_again(made: Embeddings) -> None:
    with Milvus(LITE, made) as index:
        assert index.sync() == 4
        assert index.sync() == 0
    made.write("scene-4", "second", "SNAPSHOT2", {}, [rows("scene-4", seed=5)])
    made.remove("scene-7")
    with Milvus(LITE, made) as index:
        assert index.sync() == 1
        compare(made, index, Where(), 8)


def test_what_was_lost_is_written_anew(made: Embeddings) -> None:
    with Milvus(LITE, made) as index:
        index.sync()
        index._client.delete(index.collection, filter="row == 0")
        assert index.sync() == 4
        compare(made, index, Where(), 8)
        index._client.drop_collection(index.collection)
        assert index.sync() == 4
        compare(made, index, Where(), 8)


def test_what_a_file_holds_of_embeddings_that_are_gone_goes(made: Embeddings) -> None:
    older = Embeddings(shutil.copytree(made.folder, made.folder.with_name("older-encoder")))
    for each in (older, made):
        with Milvus(LITE, each) as index:
            index.sync()
            assert index._client.has_collection("geossl_older_encoder")
    shutil.rmtree(older.folder)
    with Milvus(LITE, made) as index:
        assert index.sync() == 0
        assert index._client.list_collections() == [index.collection]


def test_a_file_that_another_process_has_open_is_told(made: Embeddings, tmp_path: Path) -> None:
    with Milvus(LITE, made) as index:
        index.sync()
        code = (
            "import sys; from pathlib import Path; from geossl.errors import StoreError\n"
            "from geossl.search.milvus import LITE, Milvus; from geossl.search.table import Embeddings\n"
            "try:\n    Milvus(LITE, Embeddings(Path(sys.argv[1])))\n"
            "except StoreError as error:\n    print(error.remedy)\n"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, str(made.folder)], capture_output=True, text=True, check=True, timeout=120
        )
    assert "search.milvus=none" in told.stdout, told.stderr
    assert "Traceback" not in told.stderr


def test_a_server_that_is_not_there_is_told(made: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "_TIMEOUT", 0.5)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9"):
        Milvus("http://127.0.0.1:9", made)


def test_where_milvus_is(monkeypatch: pytest.MonkeyPatch) -> None:
    server = "http://milvus:19530"
    assert [address(SearchSettings(milvus=name)) for name in ("auto", "none", server)] == [LITE, None, server]
    monkeypatch.setattr(milvus.importlib.util, "find_spec", lambda _: None)
    assert [address(SearchSettings(milvus=name)) for name in ("auto", "none")] == [None, None]
    with pytest.raises(SettingsError, match=r"geossl\[search\]"):
        address(SearchSettings(milvus=server))
