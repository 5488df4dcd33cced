"""Time and place of a photo from the files next to it: Google Takeout's JSON, and XMP."""

import json
import os

import pytest

from crossfilter_inference.photos.exif import Exif
from crossfilter_inference.photos.facts import complete_facts, read_sidecar
from crossfilter_inference.photos.scan import scan_folders
from crossfilter_inference.photos.sidecars import match_sidecars

LONG = "a photo whose name is longer than Takeout allows it to be.jpg"


@pytest.mark.parametrize(
    ("photo", "sidecar"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.json"),
        ("IMG_1.JPG", "img_1.jpg.JSON"),
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_20210506_070809.jpg", "IMG_20210506_070809.jpg.supplemental-me.json"),
        ("IMG_20210506_070809.jpg", "IMG_20210506_070809.jpg.s.json"),
        ("IMG_20210506_070809.jpg", "IMG_20210506_070809.jpg..json"),
        ("IMG_1(2).jpg", "IMG_1.jpg(2).json"),
        ("IMG_1(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json"),
        (LONG, f"{LONG[:46]}.json"),
        (LONG, f"{LONG}.json"),
        ("IMG_1.jpg", "IMG_1.xmp"),
        ("IMG_1.jpg", "IMG_1.jpg.xmp"),
        ("IMG_1.HEIC", "IMG_1.XMP"),
        ("Größe 1.jpg", "Größe 1.jpg.json"),
        ("5237ab3d-4df8-52aa-ae37-fa74dffefb1a.jpg", "5237ab3d-4df8-52aa-ae37-fa74dffefb1a.xmp"),
    ],
)
def test_a_sidecar_belongs_to_its_photo(photo, sidecar):
    assert match_sidecars([sidecar, "other.jpg", photo, "metadata.json", "IMG_9.jpg.json"]) == {photo: [sidecar]}


@pytest.mark.parametrize(
    "names",
    [
        ["IMG_1.jpg", "IMG_1.json"],  # Takeout keeps the extension
        ["IMG_1.jpg", "IMG_10.jpg.json"],
        ["IMG_1.jpg", "IMG_1.jpg(1).json"],
        ["IMG_1(1).jpg", "IMG_1.jpg.json"],
        ["IMG_1.jpg", "IMG_1.jpg.supplemental-data.json"],
        ["IMG_1.jpg", "IMG_1.jpg.notes.json"],
        ["metadata.json", "print-subscriptions.json", "a.jpg"],
        ["IMG_1.jpg", "IMG_1.xmp.txt"],
    ],
)
def test_another_file_is_no_sidecar(names):
    assert match_sidecars(names) == {}


def test_a_photo_may_have_two_and_an_edited_one_has_that_of_the_original():
    names = ["IMG_1.jpg", "IMG_1-edited.jpg", "IMG_1.jpg.json", "IMG_1.xmp", "IMG_2-bearbeitet.jpg"]
    assert match_sidecars(names) == {
        "IMG_1.jpg": ["IMG_1.xmp", "IMG_1.jpg.json"],
        "IMG_1-edited.jpg": ["IMG_1.xmp", "IMG_1.jpg.json"],
    }
    assert match_sidecars(["a.JPG", "a.CR2", "a.xmp"]) == {"a.JPG": ["a.xmp"], "a.CR2": ["a.xmp"]}


def takeout(timestamp="1620284889", latitude=0.0, longitude=0.0, altitude=0.0, **more):
    place = {"latitude": latitude, "longitude": longitude, "altitude": altitude}
    return json.dumps({"title": "x", "photoTakenTime": {"timestamp": timestamp}, "geoData": place, **more})


def xmp(attributes="", elements=""):
    return (
        '<?xpacket begin="" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:exif="http://ns.adobe.com/exif/'
        '1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        f"{attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
    )


TIME = {"taken": "2021-05-06T07:08:09", "taken_offset": "+00:00"}
PARIS = {"latitude": 48.8584, "longitude": 2.2945}


@pytest.mark.parametrize(
    ("name", "text", "facts"),
    [
        ("a.json", takeout(), TIME),
        ("a.json", takeout(latitude=48.8584, longitude=2.2945, altitude=330.0), TIME | PARIS | {"altitude": 330}),
        ("a.json", takeout(latitude=-33.5, longitude=0.0), TIME | {"latitude": -33.5, "longitude": 0}),
        ("a.json", takeout(geoDataExif=PARIS), TIME | PARIS),
        ("a.json", takeout("-86400"), {"taken": "1969-12-31T00:00:00", "taken_offset": "+00:00"}),
        ("a.json", takeout("99999999999999999"), {}),
        ("a.json", takeout("9999999999"), {}),
        ("a.json", takeout("soon"), {}),
        ("a.json", takeout(latitude=91, longitude=2), TIME),
        ("a.json", takeout(latitude=48.8584, longitude=2.2945, altitude=float("nan")), TIME | PARIS),
        ("a.json", takeout(latitude="north", longitude="east"), {}),
        ("a.json", "[]", {}),
        ("a.json", "{", {}),
        ("a.json", "[" * 100_000, {}),
        ("a.json", json.dumps({"name": "another program's"}), {}),
        ("a.json", " " * 2**20 + takeout(), {}),
        ("a.xmp", xmp('exif:DateTimeOriginal="2021-05-06T07:08:09Z"'), TIME),
        ("a.xmp", xmp('xmp:CreateDate="2021-05-06T07:08:09.25+00:00"'), TIME),
        (
            "a.xmp",
            xmp('xmp:CreateDate="1999-01-01T00:00:00" photoshop:DateCreated="2021-05-06T07:08:09"'),
            {"taken": TIME["taken"]},
        ),
        ("a.xmp", xmp("", "<exif:DateTimeOriginal> 2021-05-06T07:08:09Z </exif:DateTimeOriginal>"), TIME),
        ("a.xmp", xmp('exif:GPSLatitude="48,51.504N" exif:GPSLongitude="2,17.67E"'), PARIS),
        (
            "a.xmp",
            xmp(
                'exif:GPSLatitude="48,51,30S" exif:GPSLongitude="2,17,42W" exif:GPSAltitude="21/2" '
                'exif:GPSAltitudeRef="1"'
            ),
            {"latitude": -48.8583333, "longitude": -2.295, "altitude": -10.5},
        ),
        ("a.xmp", xmp('exif:GPSLatitude="48.8584" exif:GPSLongitude="2.2945"'), {}),
        ("a.xmp", xmp('exif:GPSLatitude="98,51.504N" exif:GPSLongitude="2,17.67E"'), {}),
        ("a.xmp", xmp('exif:GPSLatitude="48,51.504N" exif:GPSLongitude="2,17.67E" exif:GPSAltitude="1/0"'), PARIS),
        ("a.xmp", xmp('exif:DateTimeOriginal="2021"'), {}),
        ("a.xmp", "<x", {}),
        ("a.xmp", "", {}),
        ("a.xmp", '<!DOCTYPE x [<!ENTITY a "2021-05-06T07:08:09Z">]>' + xmp('exif:DateTimeOriginal="&a;"'), {}),
    ],
)
def test_a_sidecar_is_read(tmp_path, name, text, facts):
    (tmp_path / name).write_text(text)
    assert read_sidecar(str(tmp_path / name)) == facts


def complete(folder, name, **exif):
    found = complete_facts(vars(Exif(**exif)), str(folder / name))
    return {key: found[key] for key in ("taken", "taken_offset", "taken_from", "latitude", "longitude", "altitude")}


NOTHING = dict.fromkeys(("taken", "taken_offset", "taken_from", "latitude", "longitude", "altitude"))


def test_sidecars_complete_what_the_photo_lacks(tmp_path):
    (tmp_path / "IMG_1.jpg").touch()
    assert complete(tmp_path, "IMG_1.jpg") == NOTHING
    (tmp_path / "IMG_1.jpg.json").write_text(takeout(latitude=1.5, longitude=2.5, altitude=7))
    both = {**TIME, "taken_from": "sidecar", "latitude": 1.5, "longitude": 2.5, "altitude": 7}
    assert complete(tmp_path, "IMG_1.jpg") == both
    (tmp_path / "IMG_1.xmp").write_text(xmp('exif:GPSLatitude="48,51.504N" exif:GPSLongitude="2,17.67E"'))
    assert complete(tmp_path, "IMG_1.jpg") == both | PARIS | {"altitude": None}, "XMP comes first, JSON adds the time"
    own = {"taken": "2001-01-01T01:01:01", "latitude": 3.0, "longitude": 4.0}
    assert complete(tmp_path, "IMG_1.jpg", **own) == NOTHING | own | {"taken_from": "exif"}
    name = "IMG_20200101_010101.jpg"
    (tmp_path / name).touch()
    assert complete(tmp_path, name)["taken_from"] == "name"
    (tmp_path / f"{name}.json").write_text(takeout())
    assert complete(tmp_path, name) == NOTHING | TIME | {"taken_from": "sidecar"}


def test_a_photo_in_no_folder_has_no_sidecar(tmp_path):
    assert complete(tmp_path / "none", "IMG_1.jpg") == NOTHING


def test_a_sidecar_that_comes_or_goes_is_a_status_change_of_its_photo_alone(tmp_path):
    for name in ("IMG_1.jpg", "IMG_2.jpg"):
        (tmp_path / name).write_bytes(b"x")

    def times():
        found = scan_folders([str(tmp_path)], [".jpg"], any_name=True).nameless
        return {os.path.basename(image.path): image.ctime_ns for image in found}

    before = times()
    (tmp_path / "IMG_1.jpg.json").write_text(takeout())
    os.utime(tmp_path / "IMG_1.jpg.json", (0, 0))
    after = times()
    assert after["IMG_1.jpg"] != before["IMG_1.jpg"]
    assert after["IMG_2.jpg"] == before["IMG_2.jpg"]
    (tmp_path / "IMG_1.jpg").chmod(0o600)  # later than the sidecar's last change
    after = times()
    (tmp_path / "IMG_1.jpg.json").rename(tmp_path / "IMG_2.jpg.json")
    assert times()["IMG_1.jpg"] != after["IMG_1.jpg"]
    assert times()["IMG_2.jpg"] != after["IMG_2.jpg"]
    (tmp_path / "other.json").write_text("{}")
    found = scan_folders([str(tmp_path)], [".jpg"], any_name=True)
    assert "rejected files: 0; sidecars: 1; other files, ignored: 1 (1 .json)" in found.summary()
