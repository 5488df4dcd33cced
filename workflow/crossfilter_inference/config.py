"""Check the configuration against its schema, and say in one line what is wrong with it."""

import copy
import difflib
import json
import os
from pathlib import Path

import jsonschema
import yaml

from .errors import InputError


def read_config(files: list[str], changes: dict, schema: str) -> dict:
    """Read the configuration as a run does.

    Parameters
    ----------
    files : list of str
        Paths of YAML files, of which later ones change earlier ones.
    changes : dict
        What is different still; None leaves a key as it is.
    schema : str
        Path.

    Raises
    ------
    InputError
        If a file cannot be read, or the configuration is not allowed.
    """
    config: dict = {}
    for path in files:
        try:
            read = yaml.safe_load(Path(path).read_text("utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"--configfile: {path!r} cannot be read ({' '.join(str(error).split())})") from None
        if not isinstance(read, dict | None):
            raise InputError(f"--configfile: {path!r} holds no keys of a configuration")
        _update(config, read or {})
    return check_config({**config, **{key: value for key, value in changes.items() if value is not None}}, schema)


def _update(config: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _update(config[key], value)
        else:
            config[key] = value


def check_config(config: dict, schema_path: str | Path) -> dict:
    """Check a configuration and fill in the defaults.

    Parameters
    ----------
    config : dict
        As read from YAML. Numbers and truth values given on the command line may still be text.
    schema_path : str or Path
        The JSON schema, as YAML.

    Returns
    -------
    dict
        A copy with every default filled in; `input_dir` is a list; `~` is expanded in paths.

    Raises
    ------
    InputError
        That names the key, its value, what is allowed, and the nearest valid key where one was misspelt.
    """
    schema = yaml.safe_load(Path(schema_path).read_text("utf-8"))
    config = _with_defaults(copy.deepcopy(config), schema, schema)
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(config), key=lambda error: (len(error.path), list(map(str, error.path))))
    if errors:
        raise InputError(_describe(errors[0]) + (f" (1 of {len(errors)} mistakes)" if len(errors) > 1 else ""))
    if config["embedding_type"] not in config["encoders"]:
        raise InputError(
            f"embedding_type: {config['embedding_type']!r} is not configured"
            f"{_nearest(config['embedding_type'], config['encoders'])}; choose one of "
            f"{', '.join(sorted(config['encoders']))}, or add it under encoders:"
        )
    if isinstance(config["input_dir"], str):
        config["input_dir"] = [config["input_dir"]]
    _expand_home(config)
    if config["labels"] and not os.path.isfile(config["labels"]):
        raise InputError(f"labels: there is no file {config['labels']!r}; name a CSV file with columns UUID and LABEL")
    return config


def _with_defaults(value: object, schema: dict, root: dict) -> object:
    if "$ref" in schema:
        *_, name = schema["$ref"].split("/")
        schema = {**root["$defs"][name], **schema}
    if isinstance(value, str):
        return _from_text(value, schema.get("type"))
    if not isinstance(value, dict):
        return value
    for key, subschema in schema.get("properties", {}).items():
        if value.get(key) is None and "default" in subschema:
            value[key] = copy.deepcopy(subschema["default"])
    others = schema.get("additionalProperties") or {}
    return {
        key: _with_defaults(item, schema.get("properties", {}).get(key, others), root) for key, item in value.items()
    }


def _from_text(text: str, kind: object) -> object:
    """Read a value that the command line gave as text, as in `--config 'umap={n_neighbors: 7}'`."""
    if {"boolean", "integer", "number"} & {*([kind] if isinstance(kind, str) else kind or [])}:
        value = yaml.safe_load(text)
        return value if isinstance(value, bool | int | float) else text
    return text


def _expand_home(config: dict) -> None:
    config["input_dir"] = [os.path.expanduser(folder) for folder in config["input_dir"]]
    config["labels"] = os.path.expanduser(config["labels"])
    config["output_embeddings_db"] = os.path.expanduser(config["output_embeddings_db"])
    for encoder in config["encoders"].values():
        encoder.update(model=os.path.expanduser(encoder["model"]), backend=os.path.expanduser(encoder["backend"]))


def _describe(error: jsonschema.ValidationError) -> str:
    key, value, rule = ".".join(map(str, error.path)), error.instance, error.validator_value
    shown = json.dumps(value, ensure_ascii=False, default=str)
    match error.validator:
        case "additionalProperties":
            known = error.schema["properties"]
            unknown = next(name for name in value if name not in known)
            name = f"{key}.{unknown}" if key else unknown
            way_out = _nearest(unknown, known) or f"; the keys are {', '.join(known)}"
            return f"{name}: unknown key (value {json.dumps(value[unknown], default=str)}){way_out}"
        case "required":
            missing = next(name for name in rule if name not in value)
            description = error.schema["properties"][missing]["description"]
            return f"{f'{key}.' if key else ''}{missing}: missing; give it a value ({description})"
        case "type":
            kinds = error.schema.get("$comment") or " or ".join(map(_kind, [rule] if isinstance(rule, str) else rule))
            return f"{key or 'config'}: {shown} is not {kinds}{_note(error)}"
        case "enum":
            return f"{key}: {shown} is not allowed; choose {' or '.join(rule)}{_nearest(value, rule)}"
        case "minimum" | "maximum":
            bounds = f"from {error.schema['minimum']} to {error.schema['maximum']}"
            return f"{key}: {shown} is out of bounds; it must be {bounds}{_note(error)}"
        case "pattern":
            key = f"{key}.{value}" if "propertyNames" in error.schema_path else key
            return f"{key}: {shown} is not allowed; it must be {error.schema['$comment']}"
        case "minLength" | "minItems":
            return f"{key}: {shown} is empty{_note(error)}"
        case _:
            return f"{key}: {shown} is not allowed ({error.validator}: {rule}){_note(error)}"


def _nearest(word: object, known: object) -> str:
    spellings = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), spellings, n=1)
    return f"; did you mean {spellings[near[0]]}?" if near else ""


def _note(error: jsonschema.ValidationError) -> str:
    return f": {error.schema['description']}" if "description" in error.schema else ""


def _kind(kind: str) -> str:
    return {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "array": "a list",
        "object": "a section of keys",
        "string": "a text",
    }[kind]
