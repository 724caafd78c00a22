"""What CONTRIBUTING asks of the code, held by reading it: it is parsed, never imported.

style_exceptions.txt lists the places that do not keep to a rule yet, one a line. The list may only
shrink: a place that is not on it fails, and so does a line that is no longer needed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "secondary_learners"
EXCEPTIONS = Path(__file__).with_name("style_exceptions.txt")
TABLES = {"recipes/kinds.py": 3, "artifacts/kinds.py": 3}
"""The modules that may ask what kind a thing is, and how often."""
KINDS = {"learner", "base-model", "delta", "distilled", "student", "multistage", "loss-learner"}
MOST_PARAMETERS, MOST_LINES = 8, 399
BRITISH = re.compile(
    r"licence|artefact|colour|centre|behaviour|neighbour|favour|analyse|grey"
    r"|(optim|normal|initial|serial|token|standard|regular|organ|random|summar|real|general)is(e|i)"
)
MEANINGLESS = {"found", "told", "heard", "said"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by its path below the package."""
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Each function and method by its dotted name, those inside of functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
        deeper = isinstance(node, Function | ast.ClassDef)
        yield from functions(node, f"{prefix}{node.name}." if deeper else prefix)  # type: ignore[union-attr]


def parameters(function: Function) -> list[str]:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def too_many_parameters() -> Iterator[str]:
    """Functions outside the command line with more than 8 parameters."""
    for module, tree in modules().items():
        if not module.startswith("cli/"):
            for name, function in functions(tree):
                if len(parameters(function)) > MOST_PARAMETERS:
                    yield f"{module}:{name}"


def asks_a_kind(node: ast.AST) -> bool:
    """`isinstance(x, SomeRecipe)`, or a comparison of something called kind with a kind's name."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id != "isinstance" or len(node.args) != 2:
            return False
        return any(
            isinstance(each, ast.Name) and each.id.endswith("Recipe")
            for each in ast.walk(node.args[1])
        )
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        named = any(
            (isinstance(side, ast.Name) and side.id == "kind")
            or (isinstance(side, ast.Attribute) and side.attr == "kind")
            for side in sides
        )
        return named and any(
            isinstance(each, ast.Constant) and each.value in KINDS
            for side in sides
            for each in ast.walk(side)
        )
    if isinstance(node, ast.Match):
        return any(
            isinstance(each, ast.Constant) and each.value in KINDS
            for case in node.cases
            for each in ast.walk(case.pattern)
        )
    return False


def asks_of_kinds() -> Iterator[str]:
    """Places that ask what kind a recipe or artifact is, other than the tables of kinds."""
    for module, tree in modules().items():
        asked = sum(map(asks_a_kind, ast.walk(tree)))
        if asked > TABLES.get(module, 0):
            yield f"{module}:{asked}"


def names(tree: ast.AST) -> Iterator[str]:
    """The identifiers that a module makes: variables, parameters, functions, classes, fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, Function | ast.ClassDef):
            yield node.name


def british_identifiers() -> Iterator[str]:
    """Identifiers that are not spelled as the field's libraries spell them."""
    for module, tree in modules().items():
        for name in sorted({*names(tree)}):
            if BRITISH.search(name.lower()):
                yield f"{module}:{name}"


def meaningless_names() -> Iterator[str]:
    """Results called found, told, heard or said, and not what they are."""
    for module, tree in modules().items():
        for name in sorted(MEANINGLESS.intersection(names(tree))):
            yield f"{module}:{name}"


def long_modules() -> Iterator[str]:
    """Modules of 400 lines and more."""
    for module in modules():
        if len((SOURCE / module).read_text(encoding="utf-8").splitlines()) > MOST_LINES:
            yield module


def undocumented_names() -> Iterator[str]:
    """Public names whose docstrings lack Args (or Attributes), Returns or Raises."""
    for name, module in public_names().items():
        node = definition(module, name)
        text = ast.get_docstring(node) or ""
        needed = ["Args|Attributes"]
        if isinstance(node, Function):
            returns = ast.unparse(node.returns) if node.returns else "None"
            needed = ["Args"] * bool(parameters(node)) + ["Returns"] * (returns != "None")
            needed.append("Raises")
        elif isinstance(node, ast.ClassDef) and name.endswith("Error"):
            needed = []
        lacks = [word for word in needed if not re.search(rf"^({word}):$", text, re.MULTILINE)]
        if not text or lacks:
            yield f"{module}:{name}"


def definition(module: str, name: str) -> Function | ast.ClassDef:
    """Where `name` is defined, in `module` or in the one that it imports it from."""
    for node in modules()[module].body:
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and any(each.name == name for each in node.names):
            home = (node.module or "").removeprefix("secondary_learners.").replace(".", "/")
            return definition(f"{home}.py", name)
    raise AssertionError(f"{module} has no {name}")


def public_names() -> dict[str, str]:
    """The module of each exported name, by the table in __init__.py."""
    for node in modules()["__init__.py"].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes = ast.literal_eval(node.value)
            return {name: f"{home.replace('.', '/')}.py" for name, home in homes.items()}
    raise AssertionError("__init__.py has no _HOMES")


RULES: dict[str, Callable[[], Iterator[str]]] = {
    "parameters": too_many_parameters,
    "kinds": asks_of_kinds,
    "spelling": british_identifiers,
    "names": meaningless_names,
    "length": long_modules,
    "docstring": undocumented_names,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_code_keeps_to_the_rules(rule: str) -> None:
    lines = EXCEPTIONS.read_text().splitlines() if EXCEPTIONS.is_file() else []
    excepted = {line.split(" ", 1)[1] for line in lines if line.split(" ", 1)[0] == rule}
    broken = set(RULES[rule]())
    what = (RULES[rule].__doc__ or "").rstrip(".")
    assert not broken - excepted, f"{what}: {sorted(broken - excepted)}"
    assert not excepted - broken, f"no longer needed in {EXCEPTIONS.name}: {excepted - broken}"


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("isinstance(recipe, DeltaRecipe)", True),
        ("isinstance(recipe, LearnerRecipe | DeltaRecipe)", True),
        ("isinstance(recipe, schema.Recipe)", False),
        ("entry.kind == 'delta'", True),
        ("kind in ('learner', 'delta')", True),
        ("kind != 'mask'", False),
        ("isinstance(value, str)", False),
        ("find(name, kind='delta')", False),
    ],
)
def test_a_question_about_kinds_is_recognized(code: str, asks: bool) -> None:
    assert any(map(asks_a_kind, ast.walk(ast.parse(code)))) is asks


if __name__ == "__main__":  # the list as it would be now
    for rule, check in RULES.items():
        for place in sorted(check()):
            print(rule, place)
