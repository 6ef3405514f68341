"""The facts of a Parquet file are read as pyarrow reads them, and what its pages ask for is bounded."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from datamodules.formats.parquet import Chunk, chunks, require_pages
from datamodules.formats.protocol import FormatError, HostileFile


def written(path: Path, **options) -> Path:
    rng = np.random.default_rng(0)
    rows = 2000
    pictures = [{"bytes": rng.bytes(50), "path": None} for _ in range(rows)]
    columns = {"a.b": rng.random(rows), "a": [[1.0, 2.0]] * rows, "image": pictures, "flag": rng.random(rows) < 0.5}
    parquet.write_table(pa.table(columns), path, row_group_size=700, **options)
    return path


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
def test_the_footer_reads_as_pyarrow_reads_it(tmp_path, version, codec):
    path = written(tmp_path / "x", data_page_version=version, compression=codec, data_page_size=2000)
    facts = parquet.read_metadata(path)
    for wanted in (["a.b"], ["image", "flag"], ["a", "a.b", "image", "flag"]):
        expected = []
        for i in range(facts.num_row_groups):
            for j in range(facts.num_columns):
                column = facts.row_group(i).column(j)
                if any(f"{column.path_in_schema}.".startswith(f"{each}.") for each in wanted):
                    begins = [at for at in (column.dictionary_page_offset, column.data_page_offset) if at]
                    place = (min(begins), column.total_compressed_size)
                    expected.append(Chunk(column.path_in_schema, facts.row_group(i).num_rows, *place))
        with path.open("rb") as file:
            found = list(chunks(file, wanted, "x"))
            assert found == expected and found
            for chunk in found:
                require_pages(file, chunk, "x", values_max=2 * chunk.rows)
                with pytest.raises(HostileFile, match="values of a"):
                    require_pages(file, chunk, "x", values_max=chunk.rows - 1)


def test_a_page_larger_than_its_limit_is_refused(tmp_path):
    parquet.write_table(pa.table({"a": [bytes(65 << 20)]}), tmp_path / "x", compression="zstd", use_dictionary=False)
    assert (tmp_path / "x").stat().st_size < 100_000
    with (tmp_path / "x").open("rb") as file:
        (chunk,) = chunks(file, ["a"], "x")
        with pytest.raises(HostileFile, match="bytes of a page"):
            require_pages(file, chunk, "x", values_max=10)


def test_every_cut_and_every_wrong_byte_is_answered(tmp_path):
    content = written(tmp_path / "x").read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    rng = np.random.default_rng(0)
    answers = 0
    for k in range(100):
        damaged = bytearray(content[: rng.integers(len(content))] if k % 10 == 0 else content)
        for at in rng.integers(footer, len(content), 2):
            if at < len(damaged):
                damaged[at] = rng.integers(256)
        (tmp_path / "y").write_bytes(damaged)
        with (tmp_path / "y").open("rb") as file:
            try:
                for chunk in chunks(file, ["a", "image"], "y"):
                    require_pages(file, chunk, "y", values_max=10_000)
            except FormatError:
                answers += 1
    assert answers > 15
