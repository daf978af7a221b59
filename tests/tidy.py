"""What the house rules share: reading the source, and trying a rule before trusting it."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("api", "domain", "partners", "settlement")


@dataclass(frozen=True)
class Source:
    """A file with its path from the root, so that rules can be tried on snippets that are in no file."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree; an empty one for what is not Python."""
        return ast.parse(self.text) if self.path.endswith(".py") else ast.Module([], [])

    @cached_property
    def module(self) -> str:
        """The name under which it is imported."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def texts(self) -> list[tuple[int, str]]:
        """Every string of a Python file but its docstrings, every statement of an SQL file; with lines."""
        return list(_strings(self.tree) if self.path.endswith(".py") else _statements(self.text))

    def at(self, line: int, message: str) -> str:
        """A finding, as editors and terminals like it."""
        return f"{self.path}:{line}: {message}"

    def search(self, pattern: re.Pattern[str], message: str) -> Iterator[str]:
        """A finding per match in ``texts``; {} in the message becomes what was found."""
        for line, text in self.texts:
            for match in pattern.finditer(text):
                yield self.at(line + text.count("\n", 0, match.start()), message.format(match[0]))


def read(*patterns: str, folders: Sequence[str] = PACKAGES) -> list[Source]:
    """The files of these folders whose names match."""
    paths = {path for folder in folders for pattern in patterns for path in (ROOT / folder).rglob(pattern)}
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in sorted(paths)]


Rule = Callable[[Sequence[Source]], Iterator[str]]


def enforce(
    rule: Rule,
    sources: Sequence[Source],
    *,
    refuses: Mapping[str, str],
    accepts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Tries the rule on snippets, then on the sources.

    A snippet stands under its path ("#2" keeps two for one path apart); in what must be refused, >> marks
    the line that must be named (line 1 without a mark).
    """
    __tracebackhide__ = True  # pytest then shows the findings, not this function
    for label, text in refuses.items():
        path = label.split("#")[0]
        line = text.count("\n", 0, max(text.find(">>"), 0)) + 1
        findings = list(rule([Source(path, text.replace(">>", ""))]))
        named = {finding.split(": ")[0] for finding in findings}
        assert named == {f"{path}:{line}"}, f"{rule.__name__} should name line {line}, says {findings}, of:\n{text}"
    for label, text in accepts.items():
        findings = list(rule([Source(label.split("#")[0], text)]))
        assert not findings, f"{rule.__name__} should accept, says {findings}, of:\n{text}"
    findings = list(rule(sources))
    assert not findings, "\n" + "\n".join(findings)


def literal(node: ast.expr) -> str | None:
    """The text of a string expression, with {} for what is filled in at run time; None for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(literal(value) or "{}" for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = literal(left), literal(right)
            return None if parts == (None, None) else "".join(part or "{}" for part in parts)
    return None


def dotted(node: ast.expr) -> str:
    """a.b.c for a chain of names; what stands before a call or subscript is left out."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}".lstrip(".")
    return ""


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring, of a module, class, function or constant
        if isinstance(child, ast.expr) and (text := literal(child)) is not None:
            yield child.lineno, text
        else:
            yield from _strings(child)


def _statements(sql: str) -> Iterator[tuple[int, str]]:
    bare = re.sub(r"--[^\n]*", "", sql)
    for match in re.finditer(r"[^;\s][^;]*", bare):
        yield bare.count("\n", 0, match.start()) + 1, match[0]
