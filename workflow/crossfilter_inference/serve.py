"""Serve the globe of a collection on this machine, for what a file cannot do.

The page is that of `map.html` with all photos. It asks the server for thumbnails, originals (other formats than those
of browsers are converted), and the photos that fit a text or an image. The encoder stays loaded.

The server listens on 127.0.0.1 only. Every request needs the token of the link that `crossfilter-inference serve`
prints, or the cookie that this link sets, and must name this server as Host and, if any, as Origin. Files are named by
UUIDs of the collection, never by paths.
"""

import logging
import os
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from http.cookies import SimpleCookie
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import parse_qs

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .collection import Collection, Photo
from .embed.decode_process import DecodeProcess, Failed
from .errors import InputError
from .map.words import find_fits
from .photos.scan import size_and_time
from .photos.signatures import browser_media_type
from .shards.plan import PlannedImage
from .view.page import make_served_page

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MOST_BYTES = 100_000_000  # of an image as a query
_MOST_LETTERS = 1000  # of a text as a query
_MOST_FOUND = 500
_LARGEST_SIDE = 4096  # pixels of a photo that is converted
_N_DECODERS = 2
_MOST_REQUESTS = 512  # at once; more are refused
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"private, no-cache"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


class Site:
    """The pages and answers of the server.

    Parameters
    ----------
    open_collection : function
        Opens the collection. It is opened again after a run has made another map.
    """

    def __init__(self, open_collection: Callable[[], Collection]):
        self._open = open_collection
        self._lock, self._encoding = threading.Lock(), threading.Lock()
        self._read()

    def routes(self) -> list[Route]:
        """List the routes of the server."""
        return [
            Route("/", self._show_page),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            Route("/thumbnails/{uuid}", self._send_thumbnail),
            Route("/photos/{uuid}", self._send_photo),
            Route("/search", self._search_text, methods=["GET"]),
            Route("/search", self._search_image, methods=["POST"]),
        ]

    def _read(self) -> None:
        """Read the collection and its map; if that fails, keep what was read before."""
        collection = self._open()
        made = _identity(collection.folder / "map.html")
        page = make_served_page(collection.read_map(), collection.find_words())
        rows = {uuid: row for row, uuid in enumerate(collection.uuids)}
        self.collection, self._made, self._page, self._rows = collection, made, page, rows

    def _show_page(self, request: Request) -> Response:
        with self._lock:
            if _identity(self.collection.folder / "map.html") != self._made:
                try:
                    self._read()
                except InputError as error:  # a run is making another map
                    logger.warning("showing the map as it was: %s", error)
            page = self._page
        return Response(page, media_type="text/html; charset=utf-8")

    def _photo(self, request: Request) -> Photo:
        uuid = request.path_params["uuid"]
        if uuid not in self._rows:
            raise HTTPException(404, "no such photo")
        return self.collection.photos([uuid])[uuid]

    def _send_thumbnail(self, request: Request) -> Response:
        photo = self._photo(request)
        jpeg = self.collection.thumbnails([photo.uuid]).get(photo.uuid)
        if jpeg is None:
            raise HTTPException(404, "no thumbnail")
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def _send_photo(self, request: Request) -> Response:
        photo = self._photo(request)
        path = self.collection.path(photo)
        side = request.query_params.get("side")
        if side is not None and not re.fullmatch("[1-9][0-9]{0,3}", side):
            raise HTTPException(400, "side: expected a number of pixels from 1 to 9999")
        if side is None and (kind := _kind_for_browsers(path)):
            return FileResponse(path, media_type=kind)
        with self._decoder() as decoder:
            jpeg = decoder.reduce(_planned(photo, path), min(int(side or _LARGEST_SIDE), _LARGEST_SIDE))
        if isinstance(jpeg, Failed):
            raise HTTPException(404, f"this photo cannot be shown: {jpeg.error}")
        return Response(jpeg, media_type="image/jpeg")

    def _search_text(self, request: Request) -> Response:
        text = request.query_params.get("text", "").strip()
        if not 0 < len(text) <= _MOST_LETTERS:
            raise HTTPException(400, f"text: expected 1 to {_MOST_LETTERS:,} characters")
        with self._encoding:
            try:
                query = self.collection.embed_text(text)
            except InputError as error:
                raise HTTPException(422, str(error)) from None
        return self._found(text, query)

    async def _search_image(self, request: Request) -> Response:
        with tempfile.NamedTemporaryFile(suffix=".image") as file:
            n_bytes = 0
            try:
                async for chunk in request.stream():
                    n_bytes += len(chunk)
                    if n_bytes > MOST_BYTES:
                        raise HTTPException(413, f"an image of at most {MOST_BYTES // 10**6} MB was expected")
                    file.write(chunk)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody receives it
            file.flush()
            return await run_in_threadpool(self._search_file, file.name)

    def _search_file(self, path: str) -> Response:
        try:
            image = self.collection.load_image(path)
        except InputError as error:
            raise HTTPException(422, f"this file cannot be used: {error.__cause__ or error}") from None
        with self._encoding:
            query = self.collection.embed_image(image)
        return self._found("", query)

    def _found(self, text: str, query: np.ndarray) -> Response:
        """Answer with the photos that fit best, and whether they stand out."""
        embeddings = self.collection.embeddings
        if query.shape != embeddings.shape[1:]:
            raise HTTPException(422, "the encoder's texts and images have different dimensions")
        [fits] = find_fits(embeddings, [text], query[None])
        uuids = [self.collection.uuids[row] for row in fits.photos[:_MOST_FOUND]]
        return JSONResponse({"uuids": uuids, "isFit": fits.stand_out})

    @contextmanager
    def _decoder(self) -> Iterator[DecodeProcess]:
        decoder = self._decoders.get()
        try:
            yield decoder
        finally:
            self._decoders.put(decoder)

    @cached_property
    def _decoders(self) -> "SimpleQueue[DecodeProcess]":
        queue: SimpleQueue[DecodeProcess] = SimpleQueue()
        for _ in range(_N_DECODERS):
            queue.put(DecodeProcess(self.collection.preprocessing))
        return queue

    def close(self) -> None:
        """End the processes that decode."""
        if "_decoders" in self.__dict__:
            for _ in range(_N_DECODERS):
                self._decoders.get().close()


class Guard:
    """Refuse every request that does not come from the page of this server.

    Parameters
    ----------
    app : ASGI application
    port : int
    token : str
    """

    def __init__(self, app: ASGIApp, port: int, token: str):
        self._app, self._port, self._token = app, port, token
        self._hosts = {f"{HOST}:{port}", f"localhost:{port}"}
        self._cookie = f"crossfilter-inference-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        response = self._refusal(scope, headers) or self._entry(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in names)]
            await send(message)

        await (response or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        if headers.get("host") not in self._hosts:
            return PlainTextResponse("wrong Host", 400)
        if headers.get("origin", f"http://{headers['host']}") not in {f"http://{host}" for host in self._hosts}:
            return PlainTextResponse("wrong Origin", 403)
        if not (self._is_token(self._token_of_link(scope)) or self._is_token(self._token_of_cookie(headers))):
            return PlainTextResponse("Open the link that crossfilter-inference serve has printed.", 403)
        return None

    def _entry(self, scope: Scope) -> Response | None:
        """Exchange the token of the link for a cookie, so that it does not stay in the address."""
        if scope["path"] != "/" or not self._is_token(self._token_of_link(scope)):
            return None
        response = RedirectResponse("/", 303)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return response

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    def _token_of_link(self, scope: Scope) -> str:
        values: list[str] = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return values[0]

    def _token_of_cookie(self, headers: dict[str, str]) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except Exception:  # anything may be in a cookie
            return ""
        return str(morsel.value) if morsel else ""


def serve(site: Site, port: int = 0, *, when_ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Parameters
    ----------
    site : Site
    port : int
        0 chooses a free one.
    when_ready : function
        Receives the link.

    Raises
    ------
    InputError
        If the port cannot be used.
    """
    listener = socket.socket()
    try:
        listener.bind((HOST, port))
        listener.listen(_MOST_REQUESTS)  # a client that is early waits
    except OSError as error:
        listener.close()
        raise InputError(f"--port: {port} cannot be used ({error.strerror}); choose another, or 0 for any") from None
    port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
    app = Guard(Starlette(routes=site.routes(), exception_handlers={InputError: _report}), port, token)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=_MOST_REQUESTS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    try:
        with suppress(KeyboardInterrupt):
            _Server(config, lambda: when_ready(f"http://{HOST}:{port}/?token={token}")).run(sockets=[listener])
    finally:
        listener.close()
        site.close()


class _Server(uvicorn.Server):
    """A server that tells when it answers requests, and Ctrl-C."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]):
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_ready()


def _report(request: Request, error: Exception) -> Response:
    """Answer with the one line of an error that the user can fix."""
    return PlainTextResponse(str(error), 503)


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written; empty if it is missing."""
    status = path.stat() if path.exists() else None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else ()


def _planned(photo: Photo, path: str) -> PlannedImage:
    try:
        status = os.stat(path)
    except OSError:
        raise HTTPException(404, "the file is missing") from None
    return PlannedImage(photo.uuid, path, *size_and_time(status), "")


def _kind_for_browsers(path: str) -> str | None:
    """Return the media type of an image file that every browser shows; None for any other file."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            head = file.read(32)
    except OSError:
        raise HTTPException(404, "the file is missing") from None
    return browser_media_type(head)
