"""Kinds of values that a setting may have: how each is checked, and how a JSON schema describes it.

A kind annotates the type of a pydantic field: `Annotated[int, Number(int, 1, 10)]`.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError, core_schema

_AUTO = "auto"


class Kind:
    """A kind of value: its check and its JSON schema."""

    def check(self, value: object) -> object:
        """Return the value; raise an error with the value and the allowed ones if it is wrong."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> dict[str, Any]:
        return self.schema()


@dataclass(frozen=True)
class Number(Kind):
    """A number within bounds, or `auto` if allowed. The value is kept as given, so that digests stay the same.

    Parameters
    ----------
    kind : type
        int refuses 2.0; float takes whole numbers too.
    minimum, maximum : float
        The smallest and the largest number allowed.
    auto : bool
        Whether `auto` is allowed instead.
    """

    kind: type[int] | type[float]
    minimum: float
    maximum: float
    auto: bool = False

    def schema(self) -> dict[str, Any]:
        number = {
            "type": "integer" if self.kind is int else "number",
            "minimum": self.minimum,
            "maximum": self.maximum,
        }
        return {"anyOf": [{"const": _AUTO}, number]} if self.auto else number

    def check(self, value: object) -> float | str:
        number = _read_number(value) if isinstance(value, str) else value
        if self.auto and number == _AUTO:
            return _AUTO
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or (self.kind is int and not isinstance(number, int))
            or not math.isfinite(number)
        ):
            expected = "a whole number" if self.kind is int else "a number"
            raise refusal(f"{shown(value)} is not {expected}{' or auto' if self.auto else ''}")
        if not self.minimum <= number <= self.maximum:
            raise refusal(f"{shown(number)} is out of bounds; it must be from {self.minimum} to {self.maximum}")
        return number


@dataclass(frozen=True)
class Text(Kind):
    """A text of one line.

    Parameters
    ----------
    pattern : str
        A regular expression that must match all of it.
    expected : str
        What the pattern allows, in words.
    optional : bool
        Whether it may be empty.
    """

    pattern: str = ""
    expected: str = ""
    optional: bool = False

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            **({} if self.optional else {"minLength": 1}),
            **({"pattern": f"^({self.pattern})$"} if self.pattern else {}),
        }

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise refusal(f"{shown(value)} is not a string")
        if not value and not self.optional:
            raise refusal(f"{shown(value)} is empty")
        if re.search(r"[\0\n\r]", value):
            raise refusal(f"{shown(value)} contains a line break or a zero byte; it must be one line")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise refusal(f"{shown(value)} is not allowed; it must be {self.expected}")
        return value


@dataclass(frozen=True)
class Texts(Kind):
    """One or several texts.

    Parameters
    ----------
    item : Text
        What each of them must be.
    one : bool
        Whether a single text is allowed instead of a list of one.
    optional : bool
        Whether the list may be empty.
    auto : bool
        Whether `auto` is allowed instead of a list.
    """

    item: Text
    one: bool = False
    optional: bool = False
    auto: bool = False

    def schema(self) -> dict[str, Any]:
        text = self.item.schema()
        texts = {"type": "array", **({} if self.optional else {"minItems": 1}), "items": text}
        words = [*([text] if self.one else []), *([{"const": _AUTO}] if self.auto else [])]
        return {"anyOf": [*words, texts]} if words else texts

    def check(self, value: object) -> tuple[str, ...] | str:
        if self.auto and value == _AUTO:
            return _AUTO
        if isinstance(value, str) and self.one:
            return (self.item.check(value),)
        if not isinstance(value, list | tuple):
            others = f"{'a string or ' if self.one else ''}{'auto or ' if self.auto else ''}"
            raise refusal(f"{shown(value)} is not {others}a list")
        if not value and not self.optional:
            raise refusal(f"{shown(value)} is empty")
        return tuple(map(self.item.check, value))


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words.

    Parameters
    ----------
    words : tuple of str
    """

    words: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}

    def check(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            fix = f"choose {' or '.join(self.words)}{nearest(value, self.words)}"
            raise refusal(f"{shown(value)} is not allowed; {fix}")
        return value


@dataclass(frozen=True)
class Switch(Kind):
    """True or false."""

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def check(self, value: object) -> bool:
        read = {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
        if not isinstance(read, bool):
            raise refusal(f"{shown(value)} is not true or false")
        return read


def _read_number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def refusal(message: str) -> PydanticCustomError:
    """Make the error of a wrong value."""
    # Braces would be taken for fields of a template.
    return PydanticCustomError("refused", "{message}", {"message": message})


def shown(value: object) -> str:
    """Spell a value as JSON does."""
    return json.dumps(value, ensure_ascii=False, default=str)


def nearest(word: object, known: Iterable[str]) -> str:
    """Suggest the known word that is spelled almost like this one; empty if there is none."""
    spellings = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), spellings, n=1)
    return f"; did you mean {spellings[near[0]]}?" if near else ""
