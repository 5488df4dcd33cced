"""The same picture: a table of copies that are found, and pictures that only look alike."""

import io
import random

import numpy as np
import pytest
from conftest import DEMO_PHOTOS
from PIL import Image, ImageDraw, ImageFont

from crossfilter_inference.photos import same_picture
from crossfilter_inference.photos.same_picture import is_same_picture

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "had",
]


def encoded(image, file_format="JPEG", **how):
    file = io.BytesIO()
    image.save(file, file_format, **how)
    return Image.open(file).convert("RGB")


def resized(image, scale):
    size = tuple(max(1, round(length * scale)) for length in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


def cropped(image, left, top, right, bottom):
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


COPIES = {
    "quality 95": lambda image: encoded(image, quality=95),
    "quality 50": lambda image: encoded(image, quality=50),
    "quality 30": lambda image: encoded(image, quality=30),
    "PNG": lambda image: encoded(image, "PNG"),
    "WebP": lambda image: encoded(image, "WEBP", quality=60),
    "75 %": lambda image: encoded(resized(image, 0.75), quality=85),
    "50 %, quality 60": lambda image: encoded(resized(image, 0.5), quality=60),
    "25 %": lambda image: encoded(resized(image, 0.25), quality=85),
    "1 % off each side": lambda image: encoded(cropped(image, 0.01, 0.01, 0.01, 0.01), quality=85),
    "3 % off the left": lambda image: encoded(cropped(image, 0.03, 0, 0, 0), quality=85),
    "5 % off a corner": lambda image: encoded(cropped(image, 0.05, 0.05, 0, 0), quality=85),
    "5 % off each side": lambda image: encoded(cropped(image, 0.05, 0.05, 0.05, 0.05), quality=85),
    "cropped and 50 %": lambda image: encoded(resized(cropped(image, 0.04, 0, 0.01, 0.03), 0.5), quality=70),
}


def photos(step=1):
    return [Image.open(path).convert("RGB") for path in DEMO_PHOTOS[::step]]


def page(seed, font_size=14, n_lines=60, margin=70):
    chosen, font = random.Random(seed), ImageFont.load_default(font_size)
    image = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(image)
    for number in range(n_lines):
        y = margin + number * int(1.35 * font_size)
        if y < 1100 - margin:
            draw.text((margin, y), " ".join(chosen.choices(WORDS, k=1200 // (7 * font_size))), "black", font)
    return image


def form(seed, n_filled=1, ink=(30, 30, 120)):
    """Draw a form whose first fields are filled by hand."""
    chosen, image = random.Random(seed), page(1)
    draw = ImageDraw.Draw(image)
    for number in range(6):
        draw.rectangle((80, 100 + 110 * number, 770, 140 + 110 * number), "white", "black")
    for number in range(n_filled):
        points = [(100 + 7 * i, 120 + 110 * number + chosen.randint(-12, 12)) for i in range(30)]
        draw.line(points, ink, width=2)
    return image


def chat(seed, clock="12:01"):
    chosen, image = random.Random(seed), Image.new("RGB", (1080, 1920), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 1080, 160), (40, 90, 160))
    draw.text((480, 10), clock, "white", ImageFont.load_default(40))
    for number in range(12):
        width, is_mine = chosen.randint(300, 800), chosen.random() < 0.5
        x, y = 1040 - width if is_mine else 40, 200 + 130 * number
        draw.rounded_rectangle((x, y, x + width, y + 100), 24, (220, 248, 198) if is_mine else (235, 235, 235))
    return image


def moved(image):
    """Move the middle of a photo a little, as in the next photo of a burst."""
    width, height = image.size
    part = image.crop((width // 3, height // 3, 2 * width // 3, 2 * height // 3))
    other = image.copy()
    other.paste(part, (width // 3 + max(3, width // 40), height // 3))
    return encoded(other, quality=90)


def check_copies(originals):
    """All are found, in both directions."""
    missed = []
    for number, image in enumerate(originals):
        for name, copy in COPIES.items():
            made = copy(image)
            pair = (image, made) if number % 2 else (made, image)
            if not is_same_picture(*pair):
                missed.append((number, name))
    assert missed == []


def test_copies_of_photos_are_the_same_picture():
    check_copies(photos()[:1])


@pytest.mark.slow
def test_copies_of_all_demo_photos_are_the_same_picture():
    check_copies(photos())


def test_copies_of_a_page_and_a_form_are_the_same_picture():
    few_lines, filled = page(1, n_lines=3), form(1)
    assert is_same_picture(few_lines, COPIES["50 %, quality 60"](few_lines))
    assert is_same_picture(filled, COPIES["quality 50"](filled))
    assert is_same_picture(filled, COPIES["3 % off the left"](filled))


@pytest.mark.slow
def test_no_two_demo_photos_are_the_same_picture():
    images = photos()
    same = [(i, j) for i in range(len(images)) for j in range(i) if is_same_picture(images[i], images[j])]
    assert same == []


def test_the_first_alignments_are_compared_as_all_others_are():
    sizes = (32, 20), (13, 32)
    brightness = (image.convert("L").convert("F") for image in photos()[:2])
    moving, fixed = (image.resize(size) for image, size in zip(brightness, sizes, strict=True))
    for first, second in ((moving, moving), (moving, fixed), (fixed, moving)):
        still = np.asarray(second)
        one_by_one = [same_picture._correlation(first, still, warp) for warp in same_picture._STARTS]
        together = same_picture._correlations_of_starts(np.asarray(first, np.float64), still.astype(np.float64))
        assert np.abs(together - one_by_one).max() < 1e-5


DIFFERENT = {
    "text": lambda: (page(1), page(2)),
    "large text": lambda: (page(1, 28), page(2, 28)),
    "text of which one is reduced": lambda: (resized(page(1), 0.25), page(2)),
    "few lines": lambda: (page(1, n_lines=3), page(2, n_lines=3)),
    "handwriting on a form": lambda: (form(1), form(2)),
    "handwriting on a reduced form": lambda: (resized(form(1), 0.4), form(2)),
    "a pencil on a form": lambda: (form(1, ink=(205, 205, 205)), form(2, ink=(205, 205, 205))),
    "a filled form and an empty one": lambda: (form(1), form(1, n_filled=0)),
    "chats": lambda: (chat(1), chat(2)),
    "the clock": lambda: (chat(1), chat(1, "12:07")),
    "the clock on a thumbnail": lambda: (resized(chat(1), 0.25), chat(1, "12:07")),
    "blank": lambda: (Image.new("RGB", (800, 600), "white"), Image.new("RGB", (800, 600), "white")),
    "flat": lambda: (Image.new("RGB", (800, 600), (9, 80, 80)), Image.new("RGB", (800, 600), (90, 80, 80))),
    "gradients": lambda: (Image.linear_gradient("L").convert("RGB"),) * 2,
    "grain": lambda: tuple(
        Image.fromarray(np.random.default_rng(seed).normal(245, 3, (300, 400, 3)).astype(np.uint8)) for seed in (1, 2)
    ),
    "a burst": lambda: (photos()[9], moved(photos()[9])),
    "colours": lambda: (photos()[20], photos()[20].convert("L").convert("RGB")),
    "a mirrored photo": lambda: (photos()[9], photos()[9].transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "one pixel": lambda: (Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1))),
    "a line": lambda: (Image.new("RGB", (1000, 1)), photos()[0]),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_pictures_that_only_look_alike_are_different(name):
    first, second = DIFFERENT[name]()
    assert not is_same_picture(first, second)
    assert not is_same_picture(second, first)
