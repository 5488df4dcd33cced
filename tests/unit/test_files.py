import csv
import stat

import pandas as pd
import pytest

from crossfilter_inference.errors import InputError
from crossfilter_inference.util import files


def test_a_table_with_every_kind_of_name_is_read_back(tmp_path):
    names = ["plain", "tab\there", "line\nbreak", "return\rhere", 'a "quote"', "caf\udce9", "", "emoji 🏰"]
    files.write_tsv(tmp_path / "t.tsv", ("A", "B"), [(name, str(n)) for n, name in enumerate(names)])
    rows = list(files.read_tsv(tmp_path / "t.tsv", ("A", "B")))
    assert rows == [[name, str(n)] for n, name in enumerate(names)]


@pytest.mark.parametrize("text", ["A\n1\n\n2\n", "A\n\n", 'A\n1\n"2\n', 'A\n"1"2\n', "\nA\n"])
def test_an_empty_line_or_a_stray_quote_is_refused(tmp_path, text):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=r"t\.tsv' is damaged"):
        list(files.read_tsv(tmp_path / "t.tsv", ("A",)))


def test_rows_with_and_without_quotes_are_read_as_csv_reads_them(tmp_path):
    text = 'A\tB\r\n1\t2\n"a\n\nb"\t""\n3\t\n"x""y"\t"\t"\r\nlast\t\x00'
    (tmp_path / "t.tsv").write_bytes(text.encode())
    with (tmp_path / "t.tsv").open(newline="") as file:
        expected = list(csv.reader(file, delimiter="\t", strict=True))[1:]
    assert len(expected) == 5
    assert list(files.read_tsv(tmp_path / "t.tsv", ("A", "B"))) == expected


def test_pandas_and_csv_read_a_table(tmp_path):
    rows = [("a\tb", "1"), ("c\nd", "2")]
    files.write_tsv(tmp_path / "t.tsv", ("A", "B"), rows)
    table = pd.read_csv(tmp_path / "t.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table.itertuples(index=False, name=None)) == rows
    with (tmp_path / "t.tsv").open(newline="") as file:
        assert list(csv.reader(file, delimiter="\t"))[1:] == [list(row) for row in rows]


def test_another_table_is_refused(tmp_path):
    files.write_tsv(tmp_path / "t.tsv", ("A",), [])
    with pytest.raises(InputError, match=r"t\.tsv' is damaged; delete it, and the next run rebuilds it"):
        list(files.read_tsv(tmp_path / "t.tsv", ("A", "B")))


@pytest.mark.parametrize("text", ["A\tB\n1\t2\n3", 'A\tB\n1\t2\n"3\t4', "A\tB\n1\t2\n3\t4\t5\n"])
def test_a_truncated_or_mixed_up_table_is_refused(tmp_path, text):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=r"t\.tsv' is damaged"):
        list(files.read_tsv(tmp_path / "t.tsv", ("A", "B")))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0"])
def test_a_file_without_a_json_object_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json' is damaged; delete it, and the next run rebuilds it"):
        files.read_json(tmp_path / "x.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    monkeypatch.setattr(files, "publish", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_usual_permissions(tmp_path):
    files.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "theirs").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_stamp_replaces_the_stamps_of_its_kind(tmp_path):
    for name in ("umap-1", "umap-2", "encoder-1"):
        files.write_stamp(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"umap-2", "encoder-1"}


def test_equal_values_have_equal_digests():
    assert files.digest({"a": 1, "b": [1.5, None]}) == files.digest({"b": [1.5, None], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})
