"""The local server of the globe: what it shows, and what it refuses."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import browser
import pillow_heif
import pytest
from conftest import DEMO_PHOTOS, PROJECT, needs, new_collection
from PIL import Image

from crossfilter_inference import Collection

pytestmark = [needs("starlette", "uvicorn"), pytest.mark.slow]

PHOTOS = DEMO_PHOTOS[::3]
SIZES = []
for path in PHOTOS:
    with Image.open(path) as image:
        SIZES.append(image.size)
COMMAND = "from crossfilter_inference.cli.commands import main; main()"


class Server:
    """A running `crossfilter-inference serve`."""

    def __init__(self, database, *options):
        command = [sys.executable, "-c", COMMAND, "serve", "--output_embeddings_db", str(database), *options]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=self.said, text=True)
        line = self.process.stdout.readline()
        self.link, port, token = re.search(r"(http://127\.0\.0\.1:(\d+)/\?token=(\S+)) ", line).groups()
        self.port, self.cookie = int(port), {"Cookie": f"crossfilter-inference-{port}={token}"}

    def get(self, path, *, method="GET", body=None, **headers):
        """Send one request with the cookie; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {**self.cookie, **headers})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def raw(self, data):
        """Send bytes; return the answer, perhaps none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return client.recv(10_000)

    def is_alive(self):
        return self.process.poll() is None and self.get("/")[0] == 200

    def stop(self):
        """Press Ctrl-C; return what it has said beside the link, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=20)
            self.said.seek(0)
            return self.said.read(), self.process.returncode
        finally:
            self.process.kill()
            self.said.close()


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Photos with camera names in three formats; every second one is turned."""
    made = new_collection(
        tmp_path_factory.mktemp("served") / "collection",
        0,
        embedding_type="EFFICIENTNET_LITE0",
        reproject_umap_embeddings=True,
        names="any",
    )
    pillow_heif.register_heif_opener()
    for number, path in enumerate(PHOTOS):
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 2 else 1
        name = made.folder / "photos" / f"IMG_{number:04d}{('.HEIC', '.tif', '.jpg')[number % 3]}"
        with Image.open(path) as image:
            image.save(name, **({} if name.suffix == ".tif" else {"exif": exif}))
    made.run()
    return made


@pytest.fixture(scope="module")
def server(collection):
    server = Server(collection.database)
    yield server
    assert server.stop() == ("stopped\n", 0)


@pytest.fixture(scope="module")
def photos(collection):
    """UUID of each photo, by the number in its name."""
    opened = Collection(collection.database)
    paths = {photo.path: photo.uuid for photo in opened.photos(opened.uuids).values()}
    return {int(name[1]): uuid for path, uuid in paths.items() if (name := re.search(r"IMG_(\d+)", path))}


def image_of(answer):
    status, headers, data = answer
    assert (status, headers["content-type"]) == (200, "image/jpeg"), data[:300]
    return Image.open(io.BytesIO(data))


def test_the_link_sets_a_cookie_and_leaves_the_address(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", server.link.partition(str(server.port))[2])
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("location")) == (303, "/")
    cookie = answer.getheader("set-cookie")
    assert cookie.startswith(server.cookie["Cookie"])
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    connection.close()


def test_the_page_has_all_photos_and_no_thumbnails(server, photos):
    status, headers, page = server.get("/")
    assert status == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    data = json.loads(re.search(rb'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert {*data["uuids"]} == {*photos.values()}
    assert data["isServed"]
    assert b"/9j/" not in page


def test_thumbnails_and_photos_of_every_format_are_sent_and_stand_upright(server, photos):
    for number, uuid in photos.items():
        thumbnail = image_of(server.get(f"/thumbnails/{uuid}"))
        width, height = SIZES[number]
        if number % 2 and number % 3 == 2:  # turned; of HEIC, pillow-heif turns the pixels themselves
            width, height = height, width
        assert (thumbnail.width > thumbnail.height) == (width > height)
        small = image_of(server.get(f"/photos/{uuid}?side=64"))
        assert max(small.size) == 64
        assert (small.width > small.height) == (width > height)
        if number % 3 != 2:  # a browser turns a JPEG itself
            assert image_of(server.get(f"/photos/{uuid}")).size == (width, height)


def test_a_jpeg_is_sent_as_it_is(server, collection, photos):
    path = collection.folder / "photos" / "IMG_0002.jpg"
    status, headers, data = server.get(f"/photos/{photos[2]}")
    assert (status, headers["content-type"], data) == (200, "image/jpeg", path.read_bytes())


def test_texts_and_images_find_photos_that_fit(server, photos):
    wanted = {uuid for number, uuid in photos.items() if PHOTOS[number].parent.name == "fish"}
    status, _, data = server.get("/search?text=a+photo+of+fish")
    found = json.loads(data)
    assert status == 200
    assert found["isFit"]
    assert {*found["uuids"]} <= wanted
    number = next(number for number, uuid in photos.items() if uuid in wanted)
    status, _, data = server.get("/search", method="POST", body=PHOTOS[number].read_bytes())
    assert status == 200
    assert json.loads(data)["uuids"][0] in wanted


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("windmill", 422, "'windmill' is not one of the 3,245 words"),
        ("", 400, "text: expected 1 to 1,000 characters"),
        ("x" * 1001, 400, "text: expected 1 to 1,000 characters"),
        ("%00%ff%fe", 422, "is not one of"),
        ("%3Cscript%3E", 422, "is not one of"),
    ],
)
def test_a_text_that_cannot_be_searched_is_one_line(server, text, status, message):
    found, headers, data = server.get(f"/search?text={text}")
    assert found == status
    assert message in data.decode()
    assert headers["content-type"].startswith("text/plain")
    assert len(data.splitlines()) == 1


def test_what_is_no_image_is_refused_and_a_huge_one_too(server):
    status, _, data = server.get("/search", method="POST", body=b"no image")
    assert (status, b"this file cannot be used" in data) == (422, True)
    assert b"/tmp" not in data
    status, _, data = server.get("/search", method="POST", body=iter([bytes(2**20)] * 100))
    assert (status, b"at most 100 MB" in data) == (413, True)
    assert server.is_alive()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Cookie": ""}, 403),
        ({"Cookie": "crossfilter-inference=x"}, 403),
        ({"Cookie": "\xff\xfe;;;=;"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example:80"}, 400),
        ({"Host": "127.0.0.1"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/", "/search?text=fish", "/photos/{}", "/thumbnails/{}", "/nowhere"])
def test_requests_of_other_pages_are_refused(server, photos, path, headers, status):
    found, answered, data = server.get(path.format(photos[0]), **headers)
    assert found == status
    assert len(data) < 100
    assert "access-control-allow-origin" not in answered


@pytest.mark.parametrize("token", ["", "x", "%00", "é", "a" * 5000])
def test_a_wrong_token_opens_nothing(server, token):
    for path in ("/", "/search"):
        raw = f"GET {path}?token={token} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        assert not re.match(rb"HTTP/1.1 [23]", server.raw(raw))
    assert server.is_alive()


@pytest.mark.parametrize(
    "path",
    [
        "/photos/../../../../etc/passwd",
        "/photos/..%2f..%2f..%2fetc%2fpasswd",
        "/photos/%2e%2e/%2e%2e/etc/passwd",
        "/photos//etc/passwd",
        "//etc/passwd",
        "/../config.yaml",
        "/thumbnails/..",
        "/photos/{}/../../config.yaml",
        "/photos/{}%00.jpg",
        "/photos/{}?side=0",
        "/photos/{}?side=-1",
        "/photos/{}?side=99999",
        "/photos/{}?side=1e3",
        "/photos/{}?side=%D9%A3",
        "/photos/%ff%fe",
        "/docs",
        "/openapi.json",
    ],
)
def test_only_files_of_the_collection_are_sent(server, photos, path):
    status, _, data = server.get(path.format(photos[0]))
    assert status in (400, 404)
    assert b"root:" not in data
    assert len(data) < 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"])
def test_other_methods_change_nothing(server, method):
    status, _, data = server.get("/search", method=method)
    assert status in (400, 404, 405)
    assert len(data) < 200


def test_a_link_in_place_of_a_photo_leads_nowhere_else(server, collection, photos):
    path = collection.folder / "photos" / "IMG_0005.jpg"
    kept = path.read_bytes()
    try:
        path.unlink()
        assert server.get(f"/photos/{photos[5]}")[0] == 404
        path.symlink_to("/etc/passwd")
        status, _, data = server.get(f"/photos/{photos[5]}")
        assert (status, b"root:" in data) == (404, False)
        path.unlink()
        os.mkfifo(path)
        assert server.get(f"/photos/{photos[5]}")[0] == 404
    finally:
        path.unlink()
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 5000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /search HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /search HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"",
    ],
    ids=["zeros", "headers", "long path", "negative", "huge", "bytes", "two hosts", "TLS", "nothing"],
)
def test_malformed_requests_are_refused_and_the_server_goes_on(server, data):
    try:
        answer = server.raw(data)
    except OSError:  # it hung up
        answer = b""
    assert not re.match(rb"HTTP/1.1 [23]", answer)
    assert server.is_alive()


def test_200_requests_at_once_are_answered(server, photos):
    uuids = [*photos.values()]
    paths = [f"/thumbnails/{uuids[i % len(uuids)]}" if i % 2 else f"/photos/{photos[2]}" for i in range(200)]
    with ThreadPoolExecutor(200) as pool:
        answers = [*pool.map(server.get, paths)]
    assert [status for status, _, _ in answers] == [200] * 200
    assert server.is_alive()


def test_clients_that_never_read_hold_nobody_up(server):
    clients = []
    head = f"Host: 127.0.0.1:{server.port}\r\nCookie: {server.cookie['Cookie']}\r\n"
    try:
        for _ in range(50):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(f"GET / HTTP/1.1\r\n{head}\r\n".encode() * 20)
            clients.append(client)
        for _ in range(50):  # and some that never end their request
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(f"POST /search HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\nx".encode())
            clients.append(client)
        start = time.monotonic()
        assert server.is_alive()
        assert time.monotonic() - start < 20
    finally:
        for client in clients:
            client.close()
    assert server.is_alive()


def test_after_another_run_the_page_is_new(server, collection):
    before = server.get("/")[2]
    shutil.copy2(DEMO_PHOTOS[1], collection.folder / "photos" / "new.jpg")
    collection.run()
    after = server.get("/")[2]
    assert after.count(b"new.jpg") > before.count(b"new.jpg") == 0


def test_a_database_that_cannot_be_read_is_one_line_and_the_server_goes_on(server, collection, photos):
    kept = collection.database.with_name("kept.sqlite")
    collection.database.rename(kept)
    try:
        collection.database.write_text("damaged")
        status, headers, data = server.get(f"/thumbnails/{photos[0]}")
        assert status == 503
        assert headers["content-type"].startswith("text/plain")
        assert len(data.splitlines()) == 1
    finally:
        kept.replace(collection.database)
    assert server.get(f"/thumbnails/{photos[0]}")[0] == 200


def test_ctrl_c_ends_it_and_a_used_port_is_one_line(collection):
    one = Server(collection.database)
    command = [sys.executable, PROJECT / "scripts" / "serve.py", "--configfile", "config.yaml"]
    other = subprocess.run(
        [*command, "--port", str(one.port)], cwd=collection.folder, capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert f"--port: {one.port} cannot be used (Address already in use); choose another, or 0" in other.stderr
    assert one.stop() == ("stopped\n", 0)


def test_without_its_packages_it_says_what_to_install(collection):
    program = f"import sys; sys.modules['starlette'] = None\n{COMMAND}"
    command = [sys.executable, "-c", program, "serve", "--output_embeddings_db", str(collection.database)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: not installed: starlette; run pip install 'crossfilter-inference[serve]'\n"


@pytest.fixture(scope="module")
def tab(chromium, server):
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    tab = context.new_page()
    trouble = []
    tab.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: trouble.append(str(error)))
    own = f"http://127.0.0.1:{server.port}/"
    tab.on("request", lambda request: trouble.append(request.url) if not is_own(request.url, own) else None)
    tab.goto(server.link)
    tab.wait_for_function("() => state.frames > 0")
    browser.settle(tab)
    tab.trouble = trouble
    yield tab
    assert trouble == []
    context.close()


def is_own(url, own):
    return url.startswith((own, "data:", "blob:"))


def test_the_page_shows_thumbnails_of_the_server(tab, server):
    assert tab.url == f"http://127.0.0.1:{server.port}/"
    tab.wait_for_function("() => state.boxes.length > 5 && [...thumbnails.images.values()].every((i) => i.complete)")
    assert tab.evaluate("() => thumbnails.missing.size") == 0


def test_an_original_that_browsers_cannot_show_is_converted(tab, photos):
    tab.evaluate("(uuid) => look(data.uuids.indexOf(uuid))", photos[0])
    tab.wait_for_function("() => elements.large.naturalWidth > 0 && !elements.large.hidden")
    size = tab.evaluate("() => [elements.large.naturalWidth, elements.large.naturalHeight]")
    assert size == [*SIZES[0]]
    tab.keyboard.press("Escape")
    browser.settle(tab)


def test_any_text_and_an_image_file_find_photos(tab, photos):
    wanted = {uuid for number, uuid in photos.items() if PHOTOS[number].parent.name == "fish"}
    tab.fill("#search", "a photo of fishes")
    tab.wait_for_function("() => elements.found.textContent.endsWith(' found')")
    assert {*tab.evaluate("() => stripPhotos().map((photo) => data.uuids[photo])")} <= wanted
    tab.fill("#search", "a photo of a windmill")  # a word that the encoder does not know
    browser.settle(tab)
    tab.wait_for_timeout(500)
    assert tab.text_content("#found") == "no matching photo"
    tab.trouble.clear()  # browsers report every answer that is an error
    number = next(number for number, uuid in photos.items() if uuid in wanted)
    tab.set_input_files("#file", PHOTOS[number])
    tab.wait_for_function("() => elements.found.textContent.endsWith(' found')")
    assert tab.evaluate("() => data.uuids[stripPhotos()[0]]") in wanted
    tab.set_input_files("#file", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"broken"})
    tab.wait_for_function("() => elements.found.textContent.includes('cannot be used')")
    tab.trouble.clear()
    tab.fill("#search", "")
    browser.settle(tab)
    assert tab.evaluate("() => searchFilter.isActive") is False
