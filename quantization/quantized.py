"""What a precision adds to a model: the form of each product, and the tensors that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_gru.engines.products import HALF
from edge_gru.manifest import ProductForm
from quantization.step_model import Array, StepModel


@dataclass(frozen=True)
class Quantized:
    """Forms by the name of the weight, fp32 where there is none, and tensors by their own names.

    ``joint`` names the cells whose two matrices are rounded as one.
    """

    products: Mapping[str, ProductForm] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
    joint: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """What a bundle calls it: ``int8`` as soon as a product has integers."""
        if any(form.has_integer_weight for form in self.products.values()):
            return "int8"
        return "fp16" if self.products else "fp32"


def half(model: StepModel) -> Quantized:
    """Make every product of a cell one of fp16."""
    cells = [f"{cell}.{name}" for cell in model.cells for name in ("w_ih", "w_hh")]
    return Quantized(dict.fromkeys(cells, HALF))
