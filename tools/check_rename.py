"""Compare two trees of sources: equal but for names, each renamed in one way.

    python tools/check_rename.py BEFORE AFTER

BEFORE and AFTER are folders or commits. Every name is resolved to the scope that binds it. The
check holds when all files have the same syntax trees, and when each variable of one tree is one
variable of the other. Docstrings, imports and `__all__` are left out: they speak of names, or are
sorted by them. Prints the rename map; exits with 1 when something else was changed.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Scope:
    """A block of names: what it binds itself, and the block around it."""

    def __init__(self, number: int, node: ast.AST, parent: Scope | None) -> None:
        self.number = number
        self.parent = parent
        self.is_class = isinstance(node, ast.ClassDef)
        self.bound: set[str] = set()
        self.outer: set[str] = set()

    def binding(self, name: str) -> tuple[int, str]:
        """Return the number of the scope that binds a name, with the name; -1 for a builtin."""
        scope: Scope | None = self
        while scope is not None:
            if (
                name in scope.bound
                and name not in scope.outer
                and (scope is self or not scope.is_class)
            ):
                return scope.number, name
            scope = scope.parent
        return -1, name


class Names(ast.NodeVisitor):
    """The names of a module in the order of its tree, each with its scope and its kind."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.uses: list[tuple[str, Scope, str]] = []

    def of(self, tree: ast.Module) -> list[tuple[str, tuple[int, str]]]:
        """Return kind and binding of each name; names that are no variables have the scope -2."""
        self._enter(tree, None)
        return [
            (kind, scope.binding(name) if kind == "name" else (-2, name))
            for kind, scope, name in self.uses
        ]

    def _enter(
        self, node: ast.AST, parent: Scope | None, children: Iterator[ast.AST] | None = None
    ) -> None:
        scope = Scope(len(self.scopes), node, parent)
        self.scopes.append(scope)
        for child in ast.iter_child_nodes(node) if children is None else children:
            self._walk(child, scope)

    def _walk(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, _FUNCTIONS):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            self._bind(node.name, scope)
            for outside in [*node.decorator_list, *node.bases, *node.keywords]:
                self._walk(outside, scope)
            self._enter(node, scope, iter(node.body))
        elif isinstance(node, _COMPREHENSIONS):
            first = node.generators[0]
            self._walk(first.iter, scope)
            rest = [first.target, *first.ifs, *node.generators[1:]]
            results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            self._enter(node, scope, iter([*rest, *results]))
        else:
            self._simple(node, scope)
            for child in ast.iter_child_nodes(node):
                self._walk(child, scope)

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: Scope
    ) -> None:
        arguments = node.args
        outside: list[ast.AST] = [
            *arguments.defaults,
            *[d for d in arguments.kw_defaults if d is not None],
        ]
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        parameters += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
        outside += [p.annotation for p in parameters if p.annotation is not None]
        if not isinstance(node, ast.Lambda):
            self._bind(node.name, scope)
            outside += [*node.decorator_list, *([node.returns] if node.returns is not None else [])]
        for expression in outside:
            self._walk(expression, scope)
        inner = Scope(len(self.scopes), node, scope)
        self.scopes.append(inner)
        for parameter in parameters:
            self._bind(parameter.arg, inner)
        for child in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self._walk(child, inner)

    def _simple(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                self.uses.append(("name", scope, node.id))
            else:
                self._bind(node.id, scope)
        elif isinstance(node, ast.Attribute):
            self.uses.append(("attribute", scope, node.attr))
        elif isinstance(node, ast.keyword) and node.arg is not None:
            self.uses.append(("attribute", scope, node.arg))
        elif isinstance(node, ast.alias):
            # Not a use: imports are sorted by name, so a rename changes their order.
            scope.bound.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Global | ast.Nonlocal):
            scope.outer.update(node.names)
            for name in node.names:
                self.uses.append(("name", scope, name))
        elif (
            isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar)
            and node.name is not None
        ):
            self._bind(node.name, scope)
        elif isinstance(node, ast.MatchMapping) and node.rest is not None:
            self._bind(node.rest, scope)
        elif isinstance(node, ast.MatchClass):
            for name in node.kwd_attrs:
                self.uses.append(("attribute", scope, name))

    def _bind(self, name: str, scope: Scope) -> None:
        scope.bound.add(name)
        self.uses.append(("name", scope, name))


def trees_of(source: str) -> dict[str, ast.Module]:
    """Return the syntax trees below a folder, or of a commit's `src`, by their paths."""
    if Path(source).is_dir():
        folder = Path(source)
        return {
            str(p.relative_to(folder)): ast.parse(p.read_text())
            for p in sorted(folder.rglob("*.py"))
        }
    with tempfile.TemporaryDirectory() as temporary:
        archive = subprocess.run(
            ["git", "archive", source, "src"], check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", temporary], input=archive, check=True)
        return trees_of(f"{temporary}/src")


def shape(tree: ast.Module) -> str:
    """Return a tree without its names; texts and numbers stay."""
    nameless = _Nameless().visit(ast.parse(ast.unparse(tree)))
    return re.sub(r"(?:Pass\(\), )+", "Pass(), ", ast.dump(nameless))


class _Nameless(ast.NodeTransformer):
    """Takes names away, and imports and lists of names, whose order depends on the names."""

    def visit_Import(self, node: ast.Import) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        # Docstrings speak of names.
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in ("__all__", "__slots__"):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in ("id", "attr", "arg", "name", "asname", "module", "rest"):
            if isinstance(getattr(node, field, None), str):
                setattr(node, field, "_")
        for field in ("names", "kwd_attrs"):
            texts = getattr(node, field, None)
            if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
                setattr(node, field, ["_"] * len(texts))
        return super().generic_visit(node)


def compare(before: ast.Module, after: ast.Module) -> tuple[dict[str, set[str]], list[str]]:
    """Return the new names of each old one, and what is no renaming."""
    problems = [] if shape(before) == shape(after) else ["the trees differ in more than names"]
    old = Names().of(before)
    new = Names().of(after)
    renames: dict[str, set[str]] = {}
    after_of: dict[tuple[int, str], tuple[int, str]] = {}
    before_of: dict[tuple[int, str], tuple[int, str]] = {}
    if len(old) != len(new):
        return renames, [*problems, f"{len(old)} names became {len(new)}"]
    for (kind, binding), (_, other) in zip(old, new, strict=True):
        renames.setdefault(binding[1], set()).add(other[1])
        if kind != "name":
            continue
        if after_of.setdefault(binding, other) != other:
            problems.append(f"{binding[1]} became {after_of[binding][1]} and {other[1]}")
        if before_of.setdefault(other, binding) != binding:
            problems.append(f"{before_of[other][1]} and {binding[1]} both became {other[1]}")
    return renames, problems


def main(before: str, after: str) -> int:
    """Compare file by file; return 1 when something else than names has changed."""
    old = trees_of(before)
    new = trees_of(after)
    failed = sorted(old.keys() ^ new.keys())
    for path in failed:
        print(f"{path}: only on one side")
    all_renames: dict[str, set[str]] = {}
    for path in sorted(old.keys() & new.keys()):
        renames, problems = compare(old[path], new[path])
        for name, others in renames.items():
            all_renames.setdefault(name, set()).update(others)
        for problem in dict.fromkeys(problems):
            print(f"{path}: {problem}")
            failed.append(path)
    for name, others in sorted(all_renames.items()):
        if others != {name}:
            print(f"  {name} -> {', '.join(sorted(others))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
