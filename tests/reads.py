"""Which fields of the settings' dataclasses the code reads, found in its syntax tree by following types.

A name has a type by its annotation, by what is assigned to it, or by what a `for` gives it; an attribute by the field,
property or annotated return of its class. Every attribute taken of an object of a settings class counts as read.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

Kinds = frozenset  # of "module.Class"; "[module.Class" is a list of such
NOTHING: Kinds = frozenset()
SAME = ("replace", "copy")  # functions that return what they are given


@dataclass
class Module:
    """One file: the dotted name that each name in it means, its classes and functions."""

    name: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)


class Reads:
    """Reads of all files of `sources` {path: text}; `read` holds "module.Class.field" for settings classes and all others."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.modules = [Module(path.removesuffix(".py").replace("/", "."), ast.parse(text)) for path, text in sources.items()]
        self.bases: dict[str, list[str]] = {}
        self.fields: dict[str, dict[str, ast.expr]] = {}  # of a class, own ones: annotation of fields and properties
        self.home: dict[str, Module] = {}
        self.returns: dict[str, ast.expr] = {}
        self.read: set[str] = set()
        for module in self.modules:
            self.declare(module)
        for _ in range(2):  # what a method puts into self is known the second time
            for module in self.modules:
                self.walk(module, module.tree.body, {}, None)

    def declare(self, module: Module) -> None:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module.names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                module.names[node.name] = f"{module.name}.{node.name}"
            if isinstance(node, ast.FunctionDef) and node.returns:
                self.returns[f"{module.name}.{node.name}"], self.home[f"{module.name}.{node.name}"] = node.returns, module
            if isinstance(node, ast.ClassDef):
                name = f"{module.name}.{node.name}"
                self.home[name], self.bases[name] = module, [ast.unparse(base) for base in node.bases]
                own = {part.target.id: part.annotation for part in node.body if isinstance(part, ast.AnnAssign)}
                own |= {part.name: part.returns for part in node.body if isinstance(part, ast.FunctionDef) and part.returns}
                self.fields[name] = own

    def annotated(self, module: Module, annotation: ast.expr | None) -> Kinds:
        """The classes that an annotation means; those in a list or an iterator as lists."""
        if isinstance(annotation, ast.BinOp):
            return self.annotated(module, annotation.left) | self.annotated(module, annotation.right)
        if isinstance(annotation, ast.Subscript):
            inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            return frozenset(f"[{kind}" for part in inner for kind in self.annotated(module, part))
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self.annotated(module, ast.parse(annotation.value, mode="eval").body)
        name = module.names.get(ast.unparse(annotation)) if annotation is not None else None
        return frozenset([name]) if name in self.fields else NOTHING

    def owner(self, kind: str, attribute: str) -> str | None:
        """The class that defines an attribute: `kind` or one above it."""
        if attribute in self.fields.get(kind, {}):
            return kind
        above = (self.home[kind].names.get(base) for base in self.bases.get(kind, []))
        return next((found for base in above if base and (found := self.owner(base, attribute))), None)

    def taken(self, kinds: Kinds, attribute: str) -> Kinds:
        """Note an attribute of an object as read; its classes."""
        found: set[str] = set()
        for kind in kinds:
            if owner := self.owner(kind, attribute):
                self.read.add(f"{owner}.{attribute}")
                annotation = self.fields[owner][attribute]
                found |= annotation if isinstance(annotation, frozenset) else self.annotated(self.home[owner], annotation)
        return frozenset(found)

    def kinds(self, module: Module, node: ast.expr | None, known: dict[str, Kinds]) -> Kinds:
        """The classes of an expression, with every attribute in it noted."""
        if isinstance(node, ast.Name):
            return known.get(node.id, NOTHING)
        if isinstance(node, ast.Attribute):
            return self.taken(self.kinds(module, node.value, known), node.attr)
        if isinstance(node, ast.Call):
            given = [self.kinds(module, part, known) for part in [*node.args, *(word.value for word in node.keywords)]]
            called = ast.unparse(node.func)
            name = module.names.get(called, called)
            if not isinstance(node.func, ast.Name):
                self.kinds(module, node.func, known)
            if name in self.fields:
                return frozenset([name])
            if called in SAME or name in SAME or name.endswith(".replace"):
                return given[0] if given else NOTHING
            if name in ("common.settings.typed", "training.settings.settings_of"):  # the class is an argument
                return frozenset(n for part in node.args if (n := module.names.get(ast.unparse(part))) in self.fields)
            return self.annotated(self.home[name], self.returns[name]) if name in self.returns else NOTHING
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
            inner = dict(known)
            for part in node.generators:
                self.bind(part.target, self.items(self.kinds(module, part.iter, inner)), inner)
                for test in part.ifs:
                    self.kinds(module, test, inner)
            results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            return frozenset(f"[{kind}" for part in results for kind in self.kinds(module, part, inner))
        if isinstance(node, ast.Lambda):
            return self.kinds(module, node.body, dict(known))
        if isinstance(node, ast.NamedExpr):
            known[node.target.id] = self.kinds(module, node.value, known)
            return known[node.target.id]
        parts = (
            [self.kinds(module, part, known) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
            if node
            else []
        )
        if isinstance(node, ast.Subscript):
            return self.items(parts[0])
        return frozenset().union(*parts) if isinstance(node, ast.IfExp | ast.BoolOp | ast.List) else NOTHING

    @staticmethod
    def items(kinds: Kinds) -> Kinds:
        return frozenset(kind[1:] for kind in kinds if kind.startswith("["))

    def bind(self, target: ast.expr, kinds: Kinds, known: dict[str, Kinds]) -> None:
        """Names of an assignment; several names for one value share its classes."""
        if isinstance(target, ast.Name):
            known[target.id] = kinds
        elif isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.bind(part, kinds, known)

    def assign(self, module: Module, target: ast.expr, value: ast.expr, known: dict[str, Kinds], own: str | None) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for part, its in zip(target.elts, value.elts, strict=True):
                self.assign(module, part, its, known, own)
            return
        kinds = self.kinds(module, value, known)
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" and own and kinds:
            self.fields[own].setdefault(target.attr, kinds)  # type: ignore[arg-type]
        self.bind(target, kinds, known)

    def walk(self, module: Module, body: list[ast.stmt], known: dict[str, Kinds], own: str | None) -> None:
        """The statements of a block, in order; `own` is the class that it stands in."""
        for node in body:
            if isinstance(node, ast.ClassDef):
                self.walk(module, node.body, dict(known), f"{module.name}.{node.name}")
            elif isinstance(node, ast.FunctionDef):
                inner = dict(known) | ({"self": frozenset([own])} if own else {})
                for part in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
                    if part.annotation is not None:
                        inner[part.arg] = self.annotated(module, part.annotation)
                self.walk(module, node.body, inner, own)
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self.assign(module, target, node.value, known, own)
            elif isinstance(node, ast.For):
                self.bind(node.target, self.items(self.kinds(module, node.iter, known)), known)
                self.walk(module, [*node.body, *node.orelse], known, own)
            else:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and own is None:
                    known[node.target.id] = self.annotated(module, node.annotation)
                for part in ast.iter_child_nodes(node):
                    if isinstance(part, ast.expr):
                        self.kinds(module, part, known)
                    elif isinstance(part, ast.withitem):
                        kinds = self.kinds(module, part.context_expr, known)
                        if part.optional_vars is not None:
                            self.bind(part.optional_vars, kinds, known)
                    elif isinstance(part, ast.ExceptHandler):
                        self.walk(module, part.body, known, own)
                for name in ("body", "orelse", "finalbody"):
                    if isinstance(getattr(node, name, None), list):
                        self.walk(module, getattr(node, name), known, own)


def sources(root: Path, names: list[str]) -> dict[str, str]:
    """{path: text} of these files."""
    return {name: (root / name).read_text(encoding="utf-8") for name in names}
