"""Resolve template files to one document: extends, include, files, `${VAR}`, with locations."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agent_runtime.bounded_file import read_bounded
from agent_runtime.errors import Problem, TemplateError
from agent_runtime.secrets.redaction import SECRETS, names_a_secret
from agent_runtime.size_limits import size_limit
from agent_runtime.strict_json import loads_unique
from agent_runtime.template.yaml_reader import (
    MAX_BYTES,
    MAX_DEPTH,
    Mark,
    Node,
    parse_scalar,
    read_yaml,
)

MAX_CHAIN = 8
MAX_FILES = size_limit("template_files")
"""Most files of one template, counting repetitions: 8 files of 1 KB took 9 s."""
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^}]{0,2000}))?\})")
_SECRET = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abpr]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}"
    r"|AIza[0-9A-Za-z_-]{30,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
PROMPT_PATH = ("spec", "system_prompt")


def _read_file(path: Path, display_path: str) -> bytes:
    try:
        return read_bounded(path, MAX_BYTES)
    except OSError as error:
        if error.errno not in (errno.EFBIG, errno.EINVAL):
            raise
        raise TemplateError(
            [
                Mark(display_path).problem(
                    f"the file is {error.strerror}: at most {MAX_BYTES} are read"
                )
            ]
        ) from None


class Document:
    """Resolve one template file with its references; `problems` and `node` are the result."""

    def __init__(
        self, path: Path, data: bytes | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.root = path.resolve().parent
        self.problems: list[Problem] = []
        self.files: set[Path] = {path.absolute()} if data is None else set()
        """Every file that was read, as it was named: a link may lead elsewhere tomorrow."""
        self.variables: set[str] = set()
        """Every `${VAR}` that was looked up."""
        self.variable_marks: dict[tuple[str, ...], Mark] = {}
        """Where a value of the environment stands."""
        self._environ = os.environ if environ is None else environ
        self._display_path = str(path)
        self._file_count = 0
        node = self._resolve(path, self._display_path, data, ())
        self.node = self._fill(node, ())

    # -- files

    def find_beside(
        self, name: str, folder: Path, mark: Mark, path: str, *, kind: str = "file"
    ) -> Path | None:
        """Return the file (or `folder`) beside a template, or None and a problem.

        Nothing outside the root is opened.
        """
        message = None
        candidate = folder / name
        try:
            if Path(name).is_absolute():
                message = "an absolute path is not allowed: name a file beside the template"
            elif not candidate.resolve().is_relative_to(self.root):
                message = "the path leaves the template's folder"
            elif not (candidate.is_file() if kind == "file" else candidate.is_dir()):
                message = f"there is no {kind} '{name}' beside the template"
        except (
            ValueError,
            OSError,
            RuntimeError,
        ) as error:  # a null byte, a name too long, links in a circle
            message = f"not a usable path: {error}"
        if message is None:
            self.files.add(candidate.absolute())
            return candidate
        self.problems.append(mark.problem(message, path))
        return None

    def _resolve(
        self, path: Path, display_path: str, data: bytes | None, chain: tuple[str, ...]
    ) -> Node:
        self._file_count += 1
        if self._file_count > MAX_FILES:
            raise TemplateError(
                [Mark(display_path).problem(f"the template is made of more than {MAX_FILES} files")]
            )
        node = read_yaml(_read_file(path, display_path) if data is None else data, display_path)
        if node.kind != "map":
            raise TemplateError(
                [node.mark.problem("a template is a map with apiVersion, kind, metadata and spec")]
            )
        self._inline_files(node, path.parent)
        merged = Node("map", {}, node.mark)
        for key in ("extends", "include"):
            for parent in self._load_parents(node, key, path, chain):
                merged = _merge(merged, parent)
        return _merge(merged, node)

    def _load_parents(self, node: Node, key: str, path: Path, chain: tuple[str, ...]) -> list[Node]:
        names = node.value.get(key)
        if names is None or names.kind != "list":
            return []
        ancestors = (*chain, str(path.resolve()))
        parents: list[Node] = []
        for item in names.value:
            if not isinstance(item.value, str):
                continue  # the model's own check reports it
            parent = self.find_beside(item.value, path.parent, item.mark, key)
            if parent is None:
                continue
            if str(parent.resolve()) in ancestors:
                cycle = " -> ".join(Path(p).name for p in (*ancestors, str(parent)))
                self.problems.append(item.mark.problem(f"{key} goes in a circle: {cycle}", key))
            elif len(ancestors) >= MAX_CHAIN:
                self.problems.append(
                    item.mark.problem(f"the chain is deeper than {MAX_CHAIN} files", key)
                )
            else:
                relative_path = os.path.relpath(parent, self.root)
                parents.append(
                    self._resolve(
                        parent,
                        str(Path(self._display_path).parent / relative_path),
                        None,
                        ancestors,
                    )
                )
        return parents

    def _inline_files(self, node: Node, folder: Path) -> None:
        spec = node.value.get("spec")
        if spec is None or spec.kind != "map":
            return
        prompt = spec.value.get("system_prompt")
        if prompt is not None and prompt.kind == "map" and set(prompt.value) == {"file"}:
            name = prompt.value["file"]
            path = self.find_beside(str(name.value), folder, name.mark, "spec.system_prompt.file")
            text = "" if path is None else self._load_text(path, name.mark)
            spec.value["system_prompt"] = Node("scalar", text, Mark(str(name.value)), prompt.key)
        response = spec.value.get("response_format")
        schema = (
            response.value.get("schema")
            if response is not None and response.kind == "map"
            else None
        )
        if schema is not None and isinstance(schema.value, str):
            path = self.find_beside(
                schema.value, folder, schema.mark, "spec.response_format.schema"
            )
            if path is not None:
                response.value["schema"] = self._load_schema(path, schema)

    def _load_text(self, path: Path, mark: Mark) -> str:
        try:
            return read_bounded(path, MAX_BYTES).decode()
        except OSError as error:
            self.problems.append(mark.problem(f"{path.name} cannot be read: {error.strerror}"))
            return ""
        except UnicodeDecodeError as error:
            self.problems.append(
                mark.problem(f"{path.name} is not UTF-8: {error.reason} at offset {error.start}")
            )
            return ""

    def _load_schema(self, path: Path, reference: Node) -> Node:
        if path.suffix != ".json":
            return replace(read_yaml(_read_file(path, path.name), path.name), key=reference.key)
        try:
            value = loads_unique(_read_file(path, path.name))
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
            return _to_node(value, reference)
        except (ValueError, RecursionError) as error:
            self.problems.append(
                reference.mark.problem(
                    f"{path.name} is not JSON: {error}", "spec.response_format.schema"
                )
            )
            return Node("map", {}, reference.mark, reference.key)

    # -- values

    def _fill(self, node: Node, path: tuple[str, ...]) -> Node:
        """Return `node` without `x-*` keys, `${VAR}` filled in, literal secrets reported."""
        if node.kind == "map":
            items = {
                k: self._fill(v, (*path, k))
                for k, v in node.value.items()
                if not k.startswith("x-")
            }
            return replace(node, value=items)
        if node.kind == "list":
            return replace(
                node, value=[self._fill(v, (*path, str(i))) for i, v in enumerate(node.value)]
            )
        if not isinstance(node.value, str):
            return node
        text = node.value if path == PROMPT_PATH else self._substitute(node, path)
        if _SECRET.search(text):
            message = (
                "this looks like a secret: write {from_env: NAME} or {from_file: path} instead"
            )
            self.problems.append(node.mark.problem(message, ".".join(path), "secret_in_template"))
            return replace(node, value="")
        if text != node.value and node.unquoted:
            return replace(node, value=parse_scalar(text))
        return replace(node, value=text)

    def _substitute(self, node: Node, steps: tuple[str, ...]) -> str:
        text: str = node.value
        if "$" not in text:
            return text
        path = ".".join(steps)
        if "${" in _VARIABLE.sub("", text):
            self.problems.append(
                node.mark.problem(
                    "'${' without a name and its '}'; write $${ for a literal '${'", path
                )
            )
            return text

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            operator = match[2]
            operand = match[3]
            if name is None:
                return "$"
            self.variables.add(name)
            value = self._environ.get(name)
            if value:
                self.variable_marks[steps] = node.mark
                if "mcp" in steps or names_a_secret(
                    name
                ):  # errors and logs may quote a program's arguments
                    SECRETS.add(value)
            if value or (value is not None and operator is None):
                return value
            if operator == "-":
                return operand or ""
            message = f"environment variable {name} is not set"
            self.problems.append(
                node.mark.problem(
                    f"{message}: {operand}" if operator == "?" and operand else message, path
                )
            )
            return ""

        return _VARIABLE.sub(value_of, text)


def _to_node(value: object, origin: Node, depth: int = 1) -> Node:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return Node(
            "map",
            {
                str(k): replace(_to_node(v, origin, depth + 1), key=origin.mark)
                for k, v in value.items()
            },
            origin.mark,
            origin.key,
        )
    if isinstance(value, list):
        return Node(
            "list", [_to_node(v, origin, depth + 1) for v in value], origin.mark, origin.key
        )
    return Node("scalar", value, origin.mark, origin.key)


def _merge(base: Node, override: Node) -> Node:
    """Merge maps deeply; other values replace, and `$append` and `$remove` change lists."""
    if override.kind == "map" and override.value and set(override.value) <= {"$append", "$remove"}:
        return _apply_list_change(base, override)
    if base.kind != "map" or override.kind != "map":
        return override
    items = dict(base.value)
    for key, node in override.value.items():
        items[key] = (
            _merge(items[key], node)
            if key in items
            else _merge(Node("scalar", None, node.mark), node)
        )
    return Node("map", items, override.mark, override.key)


def _apply_list_change(base: Node, change: Node) -> Node:
    nodes = list(base.value) if base.kind == "list" else []
    removed = change.value.get("$remove")
    removed_ids = (
        {n.value for n in removed.value}
        if removed is not None and removed.kind == "list"
        else set()
    )
    nodes = [node for node in nodes if _list_item_id(node) not in removed_ids]
    appended = change.value.get("$append")
    return Node(
        "list",
        nodes + (list(appended.value) if appended is not None and appended.kind == "list" else []),
        change.mark,
        change.key,
    )


def _list_item_id(node: Node) -> object:
    if node.kind != "map":
        return node.value if node.kind == "scalar" else None
    return next(
        (node.value[k].value for k in ("name", "as", "use", "ref", "agent") if k in node.value),
        None,
    )


def to_python(node: Node) -> object:
    """Return the node's value without locations."""
    if node.kind == "map":
        return {k: to_python(v) for k, v in node.value.items()}
    return [to_python(v) for v in node.value] if node.kind == "list" else node.value


def locate(node: Node, path: tuple[str | int, ...], *, key: bool = False) -> Mark:
    """Return the location of the value (or its key) at `path`, or of the nearest enclosing one."""
    current = node
    for depth, step in enumerate(path):
        nested: Node | None = None
        if current.kind == "map":
            nested = current.value.get(str(step))
        elif current.kind == "list" and isinstance(step, int) and step < len(current.value):
            nested = current.value[step]
        if nested is None:
            return current.key or current.mark if depth else current.mark
        current = nested
    return (current.key or current.mark) if key else current.mark
