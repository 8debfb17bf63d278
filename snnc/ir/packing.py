"""Modules of the dialect as plain data, for files."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snnc.ir.dialect import ADDED, CONFIG


def pack(module: nn.Module) -> dict[str, Any]:
    """A module of the dialect as plain data: `{"type", "config", "state"}`, tensors included.

    Raises:
        KeyError: the module's class is not in the dialect.
    """
    config: dict[str, Any] = {}
    for name in CONFIG[type(module)]:
        value = getattr(module, name)
        if isinstance(value, nn.Module):
            value = pack(value)
        elif name == "bias" and not isinstance(value, bool):
            value = value is not None
        # A clone holds its own numbers and no others: torch.save writes all of what a view looks at.
        config[name] = value.clone() if isinstance(value, Tensor) else value
    given = {name for name, value in config.items() if isinstance(value, Tensor)}
    state = {k: v.clone() for k, v in module.state_dict().items() if k not in given and "." not in k}
    return {"type": type(module).__name__, "config": config, "state": state}


def unpack(packed: dict[str, Any]) -> nn.Module:
    """The module that `pack` wrote, in eval mode.

    Raises:
        KeyError, TypeError, RuntimeError, ValueError: `packed` does not describe a module of the dialect.
    """
    names = {cls.__name__: cls for cls in CONFIG}
    cls = names[packed["type"]]
    config = {**ADDED.get(cls, {}), **packed["config"]}
    if set(config) != set(CONFIG[cls]):
        raise ValueError(f"{cls.__name__} takes {CONFIG[cls]}, not {tuple(config)}")
    given = {name for name, value in config.items() if isinstance(value, Tensor)}
    for name, value in config.items():
        if isinstance(value, dict):
            config[name] = unpack(value)
        elif isinstance(value, Tensor):
            config[name] = _owned(value)
    with torch.device("meta"):  # no random numbers, and no memory for sizes that the tensors do not bear out
        module = cls(**config)
    wanted = {k: v for k, v in module.state_dict().items() if k not in given and "." not in k}
    if set(wanted) != set(packed["state"]):
        raise ValueError(f"{cls.__name__} holds {sorted(wanted)}, not {sorted(packed['state'])}")
    for name, value in packed["state"].items():
        target = wanted[name]
        if (
            not isinstance(value, Tensor)
            or target.shape != value.shape
            or target.dtype.is_floating_point != value.dtype.is_floating_point
        ):
            raise ValueError(
                f"{cls.__name__}.{name} is no tensor of shape {tuple(target.shape)} and kind {target.dtype}"
            )
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(_owned(value), requires_grad=False)
        else:
            module._buffers[name] = _owned(value)
    return module.eval()


def _owned(value: Tensor) -> Tensor:
    """A copy of a tensor from a file, unless it claims more numbers than the file holds."""
    if value.untyped_storage().nbytes() < value.nbytes:
        raise ValueError(f"a tensor of {value.nbytes} bytes has {value.untyped_storage().nbytes()}")
    return value.clone()
