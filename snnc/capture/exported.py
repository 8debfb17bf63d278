"""The door for exported programs: the ATen ops that `torch.export` writes, by the names that the other door uses.

After `run_decompositions({})` an exported program has no in-place operations and one spelling of each op, most of them
with the name and arguments of a torch function; the table here holds the rest.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import tree_unflatten

from snnc.capture import attention, embedding, layers, norms, pools, resizing, routes, spellings
from snnc.capture.calling import Calling
from snnc.capture.copying import no_backward_hooks
from snnc.capture.lowering import Lowering, Site
from snnc.capture.operations import SPELLINGS
from snnc.capture.refusals import OTHER, reason
from snnc.capture.values import Spelling
from snnc.capture.walk import op_name, walk
from snnc.errors import Blocker, Unsupported
from snnc.structure import Shape

# By whether the program was exported here, from a live module in eval mode.
EVAL_HINTS = {
    False: "export the network after model.eval()",
    True: "see that eval() reaches every layer that forward calls, and that nothing puts one back into training mode",
}
SAMPLES_HINT = "keep samples apart, and let forward do the same for any number of them"


def _norm(at: Site, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    return (layers.batch_norm(at, x, mean, var, weight, bias, eps=eps),)


def _batch_norm(
    at: Site, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float, *_: Any
) -> Any:
    return layers.batch_norm(at, x, mean, var, weight, bias, training, eps=eps)


def _norm_in_training(at: Site, x: Any, *_: Any) -> Any:
    at.refuse("normalises with the statistics of each batch", EVAL_HINTS[at.lowering.live])


def _upsample(at: Site, x: Any, size: Any, scales: Any = None, *more: Any) -> Any:
    if isinstance(scales, float):
        scales = [scales, *more]
    known = isinstance(scales, list) and all(s is not None for s in scales)
    return resizing.interpolate(at, x, None, scales) if known else resizing.interpolate(at, x, size)


def _padding(mode: str) -> Spelling:
    return lambda at, x, pad: routes.pad(at, x, pad, mode)


def _first(spelling: Spelling) -> Spelling:
    return lambda at, *args: (spelling(at, *args),)


def _with_places(spelling: Spelling) -> Spelling:
    return lambda at, *args: pools.MaximumWithPlaces(spelling(at, *args))


def _constant_pad(at: Site, x: Any, pad: Any, value: Any = 0) -> Any:
    return routes.pad(at, x, pad, "constant", value)


def _head(cls: Any) -> Spelling:
    return lambda at, x, dim, *_: spellings.head(cls)(at, x, dim)


def _layer_norm(at: Site, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    return (norms.layer_norm(at, x, shape, weight, bias, eps),)


def _group_norm(at: Site, x: Any, weight: Any, bias: Any, n: Any, c: Any, hw: Any, groups: int, eps: float) -> Any:
    return (norms.group_norm(at, x, groups, weight, bias, eps),)


def _rms_norm(at: Site, x: Any, shape: Any, weight: Any, eps: Any) -> Any:
    return (norms.rms_norm(at, x, shape, weight, eps),)


ATEN: dict[str, Spelling] = {
    **SPELLINGS,
    "embedding": embedding.exported,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_fused_rms_norm": _rms_norm,
    "_transformer_encoder_layer_fwd": attention.fast_layer,
    "_native_multi_head_attention": attention.fast_attention,
    "log_sigmoid": SPELLINGS["logsigmoid"],
    "log_sigmoid_forward": _first(SPELLINGS["logsigmoid"]),
    "_native_batch_norm_legit_no_training": _norm,
    "_native_batch_norm_legit": _norm_in_training,
    "_native_batch_norm_legit_functional": _norm_in_training,
    "batch_norm": _batch_norm,
    "convolution": layers.convolution,
    "slice": routes.slice_,
    "split_with_sizes": routes.split,
    "_unsafe_view": routes.reshape,
    "sym_size": routes.size,
    "constant_pad_nd": _constant_pad,
    "_softmax": _head(nn.Softmax),
    "_log_softmax": _head(nn.LogSoftmax),
    "_to_copy": spellings.to,
    "_adaptive_avg_pool2d": SPELLINGS["adaptive_avg_pool2d"],
    "_adaptive_avg_pool3d": SPELLINGS["adaptive_avg_pool3d"],
    "max_pool2d_with_indices": _with_places(SPELLINGS["max_pool2d"]),
    "max_pool3d_with_indices": _with_places(SPELLINGS["max_pool3d"]),
    "adaptive_max_pool1d": _with_places(SPELLINGS["adaptive_max_pool1d"]),
    "adaptive_max_pool2d": _with_places(SPELLINGS["adaptive_max_pool2d"]),
    "adaptive_max_pool3d": _with_places(SPELLINGS["adaptive_max_pool3d"]),
    **{f"upsample_nearest{d}d": _upsample for d in (1, 2, 3)},
    **resizing.EXPORTED,
    **{f"reflection_pad{d}d": _padding("reflect") for d in (1, 2, 3)},
    **{f"replication_pad{d}d": _padding("replicate") for d in (1, 2, 3)},
    **dict.fromkeys(("alias", "lift_fresh_copy", "sym_constrain_range"), layers.keep),
}


# Samples in the batch that a live model is exported with: a number that no author writes into a view.
SAMPLES = 13
FEW = 2**20


def export(model: nn.Module, how: Calling, values: Sequence[torch.Tensor]) -> ExportedProgram:
    """Exports a live model, its batch left open where the model allows that.

    Args:
        model: the module.
        how: it is called.
        values: one for each input, `SAMPLES` samples each.
    """
    args, kwargs = how.bound(values)
    sizes = {0: torch.export.Dim.AUTO}
    shapes: Any = dict.fromkeys(how.names, sizes) if kwargs else (sizes,) * len(args)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), no_backward_hooks(), _in_silence():
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without what `torch.export` says of a network before it raises: warnings, a log record, and the graph so far."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before, logger.disabled = logger.disabled, True
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _composed(program: ExportedProgram) -> dict[Any, Any]:
    """Torch's decompositions of the program's operations that consist of others and have no name here."""
    called = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    strange = [op for op in called if op_name(op) not in ATEN and reason(op_name(op)) is OTHER]
    composed = [op for op in strange if op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)]
    if not composed:
        return {}
    table = torch.export.default_decompositions()
    return {op: table[op] for op in composed if op in table}


def own_shape(program: ExportedProgram) -> Shape | None:
    """The shape of one sample that a program takes, of several inputs one each; None where it leaves a size open."""
    found: list[tuple[int, ...]] = []
    given = entries(program)
    for entry in given:
        value = entry.meta["val"]
        sizes = value.shape[1:] if isinstance(value, torch.Tensor) else ()
        whole = [n for n in sizes if isinstance(n, int)]
        if len(whole) < len(sizes) or not (whole or len(given) > 1):
            return None
        found.append(tuple(whole))
    return tuple(found) if len(found) > 1 else next(iter(found), None)


def entries(program: ExportedProgram) -> list[fx.Node]:
    """The inputs that the caller gives."""
    given = {
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and not isinstance(spec.arg, ConstantArgument)
    }
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in given]


def fixes_batch(program: ExportedProgram) -> bool:
    """Whether a number of samples stands in a program that was exported with `export`, as `len(x)` makes it."""
    return _batches(program) is None


def decides_by_batch(program: ExportedProgram) -> str:
    """Why a live module that was exported with `export` is not the same for every number of samples, or ""."""
    known = _batches(program)
    if known is None or (known.lower <= 2 and known.upper >= FEW):
        return ""
    return f"decides by the number of samples, and does this for {known.lower} to {min(known.upper, FEW)} of them only"


def _batches(program: ExportedProgram) -> Any:
    """The numbers of samples that a program is for, or None where it is one number alone."""
    batches = [entry.meta["val"].shape[0] for entry in entries(program)]
    found = [program.range_constraints.get(b.node.expr) if isinstance(b, torch.SymInt) else None for b in batches]
    known = [one for one in found if one is not None]
    return min(known, key=lambda one: one.upper - one.lower) if found and len(known) == len(found) else None


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """The program in operations that have a name here, as far as torch has decompositions."""
    return program.run_decompositions(_composed(program))


def lower_exported(program: ExportedProgram, live: bool = False) -> tuple[Lowering, Any, Shape]:
    """Lowers an exported program. Gives what was built, its result, and the shape of one sample, of all inputs.

    Args:
        program: as `torch.export` gave it.
        live: it was exported here.

    Raises:
        Unsupported: the program does not take tensors of samples.
    """
    try:
        program = decomposed(program)
    except Exception as error:
        told = f"({type(error).__name__}: {str(error).split(chr(10), maxsplit=1)[0].rstrip('.')})"
        if live and "mutated" in told:  # a tensor that is no buffer
            raise Unsupported(f"The network changes itself at each call {told}.", EVAL_HINTS[True]) from error
        hint = "export it again, with the version of torch that runs snnc"
        raise Unsupported(f"The exported program cannot be decomposed {told}.", hint) from error
    signature = program.graph_signature
    values = {**program.state_dict, **program.constants}
    constants: dict[str, Any] = {}
    for spec in signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(spec.arg, ConstantArgument):
                constants[spec.arg.name] = spec.arg.value
        else:
            value = values.get(str(spec.target))
            constants[spec.arg.name] = value.detach() if isinstance(value, torch.Tensor) else value
    given = entries(program)
    blockers = []
    for spec in signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            hint = "change buffers only where self.training is True, and export the network after model.eval()"
            hint = EVAL_HINTS[True] if live else hint
            blockers.append(Blocker(str(spec.target), "buffer", "is changed at each call", hint))
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            hint = "compute a new value, such as x = (x - mean) / std, and leave the input as it is"
            blockers.append(Blocker(str(spec.target), "input", "is changed in place", hint))
    if not given:
        raise Unsupported.of(
            [Blocker("input", "input", "the program has no input", "export a module that takes one tensor")]
        )
    shapes = [_sample_shape(entry) for entry in given]
    batch = given[0].meta["val"].shape[0]
    own = SAMPLES if live and getattr(getattr(batch, "node", None), "hint", None) == SAMPLES else None
    shape: Shape = tuple(shapes) if len(shapes) > 1 else shapes[0]
    lowering = Lowering(shape, None, like_of(program), [str(entry.target) for entry in given])
    for entry, node in zip(given, lowering.entries, strict=True):
        if not entry.meta["val"].is_floating_point():
            lowering.whole.add(node)
    lowering.batch, lowering.live = batch if isinstance(batch, int) else own, live
    lowering.blockers += blockers
    result = walk(lowering, program.graph, program.graph_module, constants, ATEN)
    kinds = (spec.kind for spec in signature.output_specs)
    outputs = [one for one, kind in zip(result, kinds, strict=True) if kind is OutputKind.USER_OUTPUT]
    return lowering, tree_unflatten(outputs, program.call_spec.out_spec), shape


def _sample_shape(entry: fx.Node) -> tuple[int, ...]:
    """The shape of one sample of an input."""
    value = entry.meta["val"]
    if not isinstance(value, torch.Tensor) or not value.dim():
        raise Unsupported.of([Blocker(entry.name, "input", "is a single number", "a network of samples in a batch")])
    if not all(isinstance(n, int) for n in value.shape[1:]):
        open_sizes = Blocker(entry.name, "input", "has sizes that are left open", "export with only the batch dynamic")
        raise Unsupported.of([open_sizes])
    return tuple(int(n) for n in value.shape[1:])


def like_of(program: ExportedProgram) -> torch.Tensor:
    """A tensor with the type of the program's numbers, where its weights are."""
    values = [
        value for value in (*program.state_dict.values(), *program.constants.values()) if isinstance(value, Tensor)
    ]
    given = [value for entry in entries(program) if isinstance(value := entry.meta["val"], Tensor)]
    floats = (value.dtype for value in (*given, *values) if value.is_floating_point())
    return torch.empty((), dtype=next(floats, torch.float32), device=next((v.device for v in values), None))
