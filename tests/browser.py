"""A real browser for the tests of the page: headless Chromium without network access."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_AT_REST = """() => !pending && !flight && !spin && !originals.nLoading
    && [...thumbnails.images.values()].every((image) => image.complete)"""
_TWO_FRAMES = "() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
# WebGL without a GPU: test machines have none.
_OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@contextmanager
def started() -> Iterator:
    """Start a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: object, page: Path, *, width: int = 1280, height: int = 800, theme: str = "dark", **options: object
) -> Iterator:
    """Open `map.html`. The list `trouble` of the tab collects errors and requests for files that are not its photos."""
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=theme, offline=True, **options)
    tab = context.new_page()
    tab.trouble, originals = [], set()
    tab.on("console", lambda message: tab.trouble.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: tab.trouble.append(str(error)))
    is_strange = lambda url: is_foreign(url, page, originals)  # noqa: E731
    tab.on("request", lambda request: tab.trouble.append(request.url) if is_strange(request.url) else None)
    tab.goto(page.as_uri())
    tab.wait_for_function("() => state.frames > 0 || !document.getElementById('trouble').hidden")
    if page.name != "empty.html":
        originals |= {*tab.evaluate("() => Array.from({ length: n }, (_, photo) => address(photo))")}
    settle(tab)
    yield tab
    context.close()


def is_foreign(url: str, page: Path, originals: set[str] = frozenset()) -> bool:
    is_original = url.startswith("file:") and url in originals
    return url != page.as_uri() and not url.startswith(("data:", "blob:")) and not is_original


def settle(tab: object) -> None:
    """Wait until nothing moves and all thumbnails in sight are decoded."""
    for _ in range(2):
        tab.wait_for_function(_AT_REST, polling=20)
        tab.evaluate(_TWO_FRAMES)  # an image that has just come asks for another frame
