"""No photo holds up or ends the job that decodes it."""

import io
import os
import re
import shutil
import subprocess
import sys

import hostile_files
import numpy as np
import pillow_heif
import psutil
import pytest
from conftest import DEMO_PHOTOS, PROJECT, decoders
from PIL import Image

from crossfilter_inference.collection import Collection
from crossfilter_inference.embed import decode_process
from crossfilter_inference.embed.decode_pool import decoding
from crossfilter_inference.embed.decode_process import Decoded, DecodeProcess, Failed, decode_image
from crossfilter_inference.errors import InputError
from crossfilter_inference.photos import failures
from crossfilter_inference.photos.image import Preprocessing
from crossfilter_inference.shards.plan import PlannedImage

pytestmark = pytest.mark.usefixtures("decode_in_processes")
PREPROCESSING = Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)
MARK = "bad"  # in the name of the photo that is badly treated
_PROGRAM = """
import sys; sys.path = sys.argv[2:]
import ctypes, os, signal, time
from crossfilter_inference.embed import decode_process as decode
decode.MOST_SECONDS = 1.0
load_image = decode.load_image
decode.load_image = lambda data, *how: (data.endswith(b"{ending}") and ({fault}), load_image(data, *how))[1]
decode.serve(int(sys.argv[1]))
"""


def planned(path):
    status = path.stat()
    return PlannedImage(path.stem, str(path), status.st_size, status.st_mtime_ns, "000001")


@pytest.fixture
def photos(tmp_path):
    """Five photos, the second of which ends in a mark."""
    paths = [shutil.copy2(path, tmp_path) for path in DEMO_PHOTOS[:5]]
    with open(paths[1], "ab") as file:
        file.write(MARK.encode())
    return [planned(tmp_path / os.path.basename(path)) for path in paths]


def decoded(photos, max_pixels=2**22, n_workers=2):
    options = {"n_workers": n_workers, "n_ahead": lambda: 4}
    with decoding(photos, PREPROCESSING, max_pixels, **options) as items:
        return list(items)


def outcome(item):
    return "decoded" if isinstance(item, Decoded) else item.error.reason


def with_fault(monkeypatch, fault, ending=MARK):
    """Have the process do something else when it decodes a photo that ends in a mark."""
    program = _PROGRAM.replace("{fault}", fault).replace("{ending}", ending)
    monkeypatch.setattr(decode_process, "_PROGRAM", program)


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        ("sum(range(10**9))", "too slow", "decoding takes more than 9 s of CPU time"),
        ("ctypes.string_at(0)", "crashed", "the decoder crashed (SIGSEGV)"),
        ("os.abort()", "crashed", "the decoder crashed (SIGABRT)"),
        ("os._exit(3)", "crashed", "the decoder crashed (exit code 3)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "out of memory", "the process that decoded it was killed twice"),
    ],
)
def test_a_photo_that_hangs_or_crashes_its_decoder_fails_alone(photos, monkeypatch, capfd, fault, reason, message):
    with_fault(monkeypatch, fault)
    items = decoded(photos)
    assert [item.image for item in items] == photos, "in order"
    assert [outcome(item) for item in items] == ["decoded", reason, "decoded", "decoded", "decoded"]
    assert str(items[1].error) == message
    assert capfd.readouterr().err == ""


def allocates(monkeypatch, n_bytes):
    """Have the process allocate memory, as a decoder that never frees it."""
    calloc = f"ctypes.CDLL(None).calloc(ctypes.c_size_t(1), ctypes.c_size_t({n_bytes}))"
    failing = "(_ for _ in ()).throw(decode.ImageError('out of memory', 'no more'))"
    with_fault(monkeypatch, f"{calloc} or {failing}")


@pytest.mark.parametrize("max_pixels", [2**20, 2**25])
def test_memory_is_limited_to_what_max_megapixels_stands_for(photos, monkeypatch, max_pixels):
    allocates(monkeypatch, 16 * max_pixels)
    assert all(isinstance(item, Decoded) for item in decoded(photos, max_pixels))
    allocates(monkeypatch, 16 * max_pixels + 2**28 + 2**22)
    items = decoded(photos, max_pixels)
    assert [outcome(item) for item in items] == ["decoded", "too large", "decoded", "decoded", "decoded"]
    megabytes = f"{(16 * max_pixels + 2**28) // 10**6:,} MB"
    assert str(items[1].error) == (
        f"decoding takes more than {megabytes} of memory, enough for the {max_pixels / 1e6:.6g} megapixels of "
        "max_megapixels"
    )


def test_memory_that_a_decoder_leaks_fails_no_other_photo(photos, monkeypatch):
    allocates(monkeypatch, 2**27)
    items = decoded([photos[1]] * 4, 2**20, n_workers=1)
    assert [outcome(item) for item in items] == ["decoded"] * 4


def test_waiting_does_not_count_as_computing(photos, monkeypatch):
    with_fault(monkeypatch, "time.sleep(1.5)")
    assert all(isinstance(item, Decoded) for item in decoded(photos))


def test_each_photo_has_the_whole_time(photos, monkeypatch):
    busy = "[None for _ in iter(lambda: time.process_time() > start + 0.6, True)]"
    with_fault(monkeypatch, f"[{busy} for start in [time.process_time()]]")
    assert all(isinstance(item, Decoded) for item in decoded([photos[1]] * 3, n_workers=1))


def test_more_pixels_may_take_longer():
    assert decode_process.most_seconds(2**20) == decode_process.most_seconds(2**28) == 9
    assert decode_process.most_seconds(2**30) == 36


def test_a_process_that_something_else_has_killed_fails_no_photo(photos, monkeypatch):
    process = DecodeProcess(PREPROCESSING)
    try:
        for photo in photos:
            assert isinstance(process.decode(photo), Decoded)
            process._process.kill()
    finally:
        process.close()
    assert decoders() == []


def test_a_fault_of_the_program_itself_is_raised_and_not_blamed_on_the_photo(photos, monkeypatch):
    with_fault(monkeypatch, "{}['no such key']")
    with pytest.raises(KeyError, match="no such key"):
        decoded(photos)


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import sys; sys.exit(3)"])
def test_a_process_that_does_not_start_is_one_line(photos, monkeypatch, program):
    monkeypatch.setattr(decode_process, "_PROGRAM", program)
    with pytest.raises(InputError, match=r"a process that decodes photos cannot be started \(exit code 3\); give the"):
        decoded(photos)


def test_no_process_outlives_the_decoding(photos, monkeypatch):
    with_fault(monkeypatch, "time.sleep(60)")
    options = {"n_workers": 3, "n_ahead": lambda: 3}
    with decoding(photos * 20, PREPROCESSING, **options) as items:
        assert isinstance(next(items), Decoded)
        assert decoders()
    assert decoders() == []


def test_only_as_many_processes_start_as_have_work(photos):
    with decoding(photos[:1], PREPROCESSING, n_workers=8, n_ahead=lambda: 10) as items:
        assert len(list(items)) == 1
        assert len(decoders()) == 1


def test_the_pixels_are_those_of_this_process(photos):
    for item, photo in zip(decoded(photos), photos, strict=True):
        here = decode_image(photo, PREPROCESSING)
        assert (item.digest, item.loaded.thumbnail) == (here.digest, here.loaded.thumbnail)
        assert (item.loaded.pixels == here.loaded.pixels).all()


def test_a_missing_photo_keeps_its_reason(photos, tmp_path):
    [item] = decoded([photos[0]._replace(path=str(tmp_path / "none.jpg"))])
    assert (item.error.reason, str(item.error)) == ("missing", "No such file or directory")


@pytest.mark.slow
@pytest.mark.parametrize("data", hostile_files.SLOW.values(), ids=hostile_files.SLOW)
def test_a_file_made_to_take_long_has_an_outcome_within_the_limits(tmp_path, data, monkeypatch):
    (path := tmp_path / "slow.jpg").write_bytes(data())
    process = DecodeProcess(PREPROCESSING)
    try:
        item = process.decode(planned(path))
        used = process._process and psutil.Process(process._process.pid).cpu_times()
    finally:
        process.close()
    if used is None:
        assert item.error.reason in ("too slow", "too large"), item
    else:
        assert used.user + used.system < decode_process.MOST_SECONDS + 1, "the start included"


def test_every_reason_has_advice_and_stands_in_the_documentation():
    sources = (PROJECT / "workflow" / "crossfilter_inference").rglob("*.py")
    raised = {reason for path in sources for reason in re.findall(r'ImageError\(\s*"([a-z ]+)"', path.read_text())} | {
        "truncated",
        "damaged",
    }
    assert len(raised) >= 10
    assert raised <= failures._ADVICE.keys()
    table = (PROJECT / "docs" / "recovery.md").read_text()
    assert [reason for reason, fix in failures._ADVICE.items() if f"| {reason} | {fix} |" not in table] == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("sum(range(10**9))", "decoding takes more than 9 s of CPU time"),
        ("os.abort()", "the decoder crashed (SIGABRT)"),
        ("[]", ""),
    ],
)
def test_an_image_that_is_searched_for_is_decoded_within_the_limits(photos, monkeypatch, fault, message):
    with_fault(monkeypatch, fault)
    collection = object.__new__(Collection)
    collection.encoder = {"preprocessing": PREPROCESSING.to_json()}
    if not message:
        assert collection.load_image(photos[1].path).pixels.shape == (32, 32, 3)
    else:
        with pytest.raises(InputError) as raised:
            collection.load_image(photos[1].path)
        assert str(raised.value) == f"--image: {photos[1].path!r} cannot be used ({message}); name another file"
    assert decoders() == []


_INTERRUPTED_START = """
import os, signal, sys, threading
from crossfilter_inference.embed.decode_process import Decoded, DecodeProcess
from crossfilter_inference.photos.image import Preprocessing
from crossfilter_inference.shards.plan import PlannedImage

signal.signal(signal.SIGINT, lambda *_: None)
done = threading.Event()

def interrupt():
    while not done.wait(0.01):
        os.killpg(0, signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
path = sys.argv[1]
image = PlannedImage("u", path, os.path.getsize(path), os.stat(path).st_mtime_ns, "000001")
with DecodeProcess(Preprocessing(size=32, resample=2, mean=(0.5,) * 3, std=(0.5,) * 3)) as process:
    print(isinstance(process.decode(image), Decoded))
done.set()
"""


def test_ctrl_c_while_the_process_starts_does_not_reach_it():
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_START, DEMO_PHOTOS[0]],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "workflow")},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize(("name", "how"), [("x.heic", {}), ("x.tif", {}), ("x.png", {}), ("x.jpg", {"orientation": 6})])
def test_a_photo_of_any_format_is_reduced_to_an_upright_jpeg(tmp_path, name, how):
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, :200] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = how.get("orientation", 1)
    pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(tmp_path / name, **({} if name.endswith("tif") else {"exif": exif}))
    with DecodeProcess(PREPROCESSING) as process:
        data = process.reduce(planned(tmp_path / name), 200)
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == ("JPEG", (150, 200) if how else (200, 150))
        red = np.asarray(image)[10, 10]  # the left side has moved to the top, which the turn brings to the right
        assert red[0] > 240
        assert red[1] < 20
        assert process.reduce(planned(tmp_path / name), 4000) != data


def test_a_photo_that_cannot_be_reduced_fails_and_the_next_one_does_not(photos, tmp_path, monkeypatch):
    with DecodeProcess(PREPROCESSING) as process:
        (tmp_path / "broken.jpg").write_text("broken")
        failed = process.reduce(planned(tmp_path / "broken.jpg"), 100)
        assert (type(failed), failed.error.reason) == (Failed, "not an image")
        assert process.reduce(photos[0], 100)[:2] == b"\xff\xd8"
    program = _PROGRAM.replace("load_image", "load_jpeg").replace("{fault}", "os.abort()").replace("{ending}", MARK)
    monkeypatch.setattr(decode_process, "_PROGRAM", program)
    with DecodeProcess(PREPROCESSING) as process:
        assert process.reduce(photos[1], 100).error.reason == "crashed"
        assert process.reduce(photos[2], 100)[:2] == b"\xff\xd8"
