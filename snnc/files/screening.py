"""What the JSON of an exported program may hold. Text that is not expected in its place is refused."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

import torch


class ReadRefused(Exception):
    """The JSON holds something that could run. The message says what, as the end of "... is refused: "."""


def screened(value: Any, key: str = "") -> Any:
    """A copy of the JSON value found under `key`, with its devices set to the CPU.

    Raises:
        ReadRefused: it holds text that torch might evaluate, import, or write into source.
    """
    if isinstance(value, dict):
        if "type" in value and value.keys() <= {"type", "index"}:
            return {"type": "cpu", "index": None}  # as `map_location` does for torch.load
        if key == "metadata":  # provenance is shown, never run; the kinds that look functions up are dropped
            return {k: str(value[k]) for k in ("stack_trace", "nn_module_stack", "torch_fn") if k in value}
        if key == "constant_input" and "as_string" in value.get("value", {}):
            raise ReadRefused("it has a text as input")  # torch would write it unquoted into a guard
        for name in value:
            if not _is_word(name):
                raise ReadRefused(f"it has a field named {name[:60]!r}")
        return {k: screened(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [screened(v, key) for v in value]
    if isinstance(value, str) and not _CHECKS.get(key, _is_word)(value):
        raise ReadRefused(f"its field '{key}' holds {value[:60]!r}")
    return value


def _is_word(text: Any) -> bool:
    """No quotes, brackets, blanks: nothing that could leave a string or a name in generated source."""
    return isinstance(text, str) and re.fullmatch(r"[\w.@/+:<=-]*", text) is not None


def is_name(text: Any) -> bool:
    """Whether it is an identifier, or empty where a name is optional."""
    return isinstance(text, str) and (text == "" or text.isidentifier())


_OF_SIZES = "add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
_ARITHMETIC = re.compile(rf"_operator\.({_OF_SIZES})|math\.[a-z]\w*|torch\._?sym_\w+")
_FLOW = re.compile(r"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast)")
_TENSOR_OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.(\w+)\.(\w+)")


def _is_operator(text: str) -> bool:
    """An ATen operator, or arithmetic on sizes. Any other name could reach any function below `torch`."""
    if _ARITHMETIC.fullmatch(text) or _FLOW.fullmatch(text):
        return True
    match = _TENSOR_OPERATOR.fullmatch(text)
    if match is None:
        return False
    operator = getattr(getattr(getattr(torch.ops, match[1]), match[2], None), match[3], None)
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    return not any(argument.name == "filename" for argument in operator._schema.arguments)


_HEADS = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Max|Min|Mod|PythonMod|ModularIndexing|FloorDiv|CleanDiv|CeilDiv|"
    "FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|CeilToInt|FloorToInt|RoundToInt|ToFloat|"
    "Identity|Where|Equality|Unequality|LessThan|StrictLessThan|GreaterThan|StrictGreaterThan|And|Or|Not"
)
_POWER = re.compile(r"Pow(ByNatural)?\((?=Symbol\([^()]*\), Integer\(\d\)\))")


def _is_expression(text: str) -> bool:
    """A formula of sizes as sympy prints it, which torch has sympy evaluate as Python."""
    if len(text) > 2000:
        return False
    # Powers of sizes only: sympy works a power of numbers out, however large it gets.
    text = _POWER.sub("Mul(", text)
    try:
        return _is_formula(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return False


def _is_formula(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=head), args=args, keywords=keywords):
            options = [k.value for k in keywords]  # such as positive=True
            if not all(isinstance(v, ast.Constant) and type(v.value) in (bool, int) for v in options):
                return False
            return _HEADS.fullmatch(head) is not None and all(map(_is_formula, args))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as value):
            return _is_formula(value)
        case ast.Name(id=name):
            return name in ("oo", "int_oo", "true", "false")
        case ast.Constant(value=str() as name):  # of a symbol, or a float's digits
            return re.fullmatch(r"[a-z]+\d+|[\d.e+-]+", name) is not None
        case ast.Constant(value=value):
            return type(value) in (int, float, bool)
    return False


_CONTAINERS = {
    *("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"),
    *("torch.fx.immutable_collections.immutable_list", "torch.fx.immutable_collections.immutable_dict"),
}


def _is_tree(text: str) -> bool:
    """A specification of nested containers. Other kinds import a module that the file names."""

    def known(tree: dict[str, Any]) -> bool:
        if tree["type"] is None:
            return tree["context"] is None and not tree["children_spec"]
        if tree["type"] not in _CONTAINERS:
            return False
        keys = json.loads(tree["context"])
        plain = keys is None or (isinstance(keys, list) and all(type(key) is int or _is_word(key) for key in keys))
        return plain and all(map(known, tree["children_spec"]))

    version, spec = json.loads(text)
    return version == 1 and known(spec)


def _never(text: str) -> bool:
    return False


def _always(text: str) -> bool:
    return True


_CHECKS: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(("name", "as_name", "forward_arg_names", "field_names"), is_name),
    **dict.fromkeys(("target", "as_operator"), _is_operator),
    **dict.fromkeys(("in_spec", "out_spec"), _is_tree),
    "expr_str": _is_expression,
    "as_float": {"Infinity", "-Infinity", "NaN"}.__contains__,
    **dict.fromkeys(("as_string", "as_strings"), _always),  # arguments such as a padding mode: always quoted
    "guards_code": _always,  # the archive's reader drops it
    **dict.fromkeys(("as_int", "as_ints", "as_bool", "as_bools", "min_val", "max_val", "use_pickle"), _never),
}
