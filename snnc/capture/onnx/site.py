"""An ONNX node on its way: a `Site` that knows the node's attributes and the version of its operation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from snnc.capture.lowering import Site
from snnc.capture.onnx.fold import Varying


@dataclass
class OnnxSite(Site):
    """A node of an ONNX graph.

    Attributes:
        attributes: by name; absent ones have the default of the operation.
        opset: version of ONNX's operations.
        results: how many results the node names.
        read: names of attributes that were asked for.
    """

    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 0
    results: int = 1
    read: set[str] = field(default_factory=set)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute. Attributes that are never asked for are refused: see `schema.check_read`."""
        self.read.add(name)
        return self.attributes.get(name, default)

    def spatial(self, x: fx.Node) -> int:
        """Number of dimensions of a map."""
        dims = len(self.known(x)) - 1
        if dims not in (1, 2, 3):
            self.refuse(f"acts on maps of {dims} dimensions", "maps of 1 to 3 dimensions, behind batch and channels")
        return dims

    def numbers(self, value: Any, attribute: str = "") -> list[Any] | None:
        """Sizes or axes, which newer versions take as an input and older ones as an attribute; None for neither."""
        if value is None and attribute:
            value = self.get(attribute)
        if value is None:
            return None
        if isinstance(value, Varying):
            return value.numbers()
        if isinstance(value, Tensor):
            return [self.integer(v) for v in value.flatten()]
        if isinstance(value, (list, tuple)):
            return [self.integer(v) for v in value]
        if isinstance(value, int):
            return [value]
        return self.refuse("takes a shape or axes from data", "export the network with constant shapes")

    def real(self, value: Any, default: float | None = None) -> float | None:
        """One number that is no size: an input or an attribute."""
        if value is None:
            return default
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
        if isinstance(value, (int, float)):
            return float(value)
        return self.refuse("needs one constant number", "export the network with constants in its place")
