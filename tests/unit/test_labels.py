import pytest

from crossfilter_inference.errors import InputError
from crossfilter_inference.map.labels import read_labels


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv"])
def test_labels_are_read_by_uuid_in_any_spelling(tmp_path, name):
    separator = "\t" if name.endswith("tsv") else ","
    lines = [
        "Label,author,uuid",
        "fish,x,5237AB3D-4df8-52aa-ae37-fa74dffefb1a",
        ",x,366a8472-6f1b-5419-9d7b-d30b6298500d",
    ]
    (tmp_path / name).write_text("\n".join(line.replace(",", separator) for line in lines))
    uuids = ["366a8472-6f1b-5419-9d7b-d30b6298500d", "5237ab3d-4df8-52aa-ae37-fa74dffefb1a", "not in the table"]
    assert read_labels(str(tmp_path / name), uuids) == [None, "fish", None]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "", b"\xff\xfe\x00"])
def test_a_table_without_the_columns_is_refused(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"labels: .* columns? .*UUID and LABEL"):
        read_labels(str(path), [])
