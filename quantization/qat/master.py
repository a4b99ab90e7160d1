"""The weights behind integers while they are learnt: as steps of their rows, and the row scales."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from edge_gru.engines.cells import CELLS
from edge_gru.engines.products import operand_grid
from quantization.qat.products import Factor, integers
from quantization.quantized import Quantized
from quantization.rounding import Q_MAX, QuantizedRows
from quantization.sites import Site, find_sites
from quantization.step_model import StepModel

Tensor: TypeAlias = torch.Tensor


class MasterWeight:
    """One weight, which begins as the integers that it is given.

    ``steps`` (rows, n) counts steps of the row scales that it began with; ``log_growth`` (rows,)
    is the logarithm of how much these have grown, so that no scale ever becomes negative.
    """

    def __init__(self, weight: str, quantized: Quantized, dtype: torch.dtype) -> None:
        self._form = quantized.products[weight]
        self._q_max = Q_MAX[self._form.weight]
        step, gain = operand_grid(quantized.tensors, weight)
        self._operand_step = torch.tensor(step) if self._form.has_integer_operand else None
        self._gain = None if gain is None else torch.from_numpy(gain.copy())
        scale = quantized.tensors[f"{weight}_scale"]
        self.steps = _learnt(quantized.tensors[f"{weight}_q"], dtype)
        self.log_growth = _learnt(np.zeros(len(scale)), dtype)
        self._first_scale = torch.from_numpy(scale.copy()).to(dtype)

    def scale(self) -> Tensor:
        """Return the scale of each row."""
        return self._first_scale * self.log_growth.exp()

    def factor(self, scale: Tensor) -> Factor:
        """Return what the product reads, with these scales of the rows."""
        per_step = scale if self._operand_step is None else scale * self._operand_step
        matrix = self._integers(scale) * per_step[:, None]
        return Factor(matrix, self._form, self._operand_step, self._gain)

    def rows(self, scale: Tensor) -> QuantizedRows:
        """Return the integers and their scales."""
        q = self._integers(scale).to(torch.int8)
        return QuantizedRows(q.numpy(), scale.to(torch.float32).numpy())

    def _integers(self, scale: Tensor) -> Tensor:
        return integers(self.steps * (self._first_scale / scale)[:, None], self._q_max)


class MasterWeights:
    """All weights of a model that are not float: integers to be learnt, fp16 as it is."""

    def __init__(
        self, model: StepModel, quantized: Quantized, dtype: torch.dtype = torch.float32
    ) -> None:
        forms = quantized.products
        sites = [site for site in find_sites(model) if site.weight in forms]
        self._learnt = {
            site.weight: MasterWeight(site.weight, quantized, dtype)
            for site in sites
            if forms[site.weight].has_integer_weight
        }
        self._fixed = {
            site.weight: Factor(
                torch.from_numpy(site.floats(model).copy()).to(dtype), forms[site.weight]
            )
            for site in sites
            if site.weight not in self._learnt
        }
        self._n_shared = {
            site.weight: _n_joint_rows(site, model)
            for site in sites
            if site.cell in quantized.joint and site.kind != "recurrent"
        }

    def steps(self) -> list[Tensor]:
        """List the learnt weights."""
        return [master.steps for master in self._learnt.values()]

    def log_growths(self) -> list[Tensor]:
        """List the learnt growths of the row scales."""
        return [master.log_growth for master in self._learnt.values()]

    def factors(self) -> dict[str, Factor]:
        """Return what each product reads now, by the name of its weight."""
        learnt = {w: m.factor(self._scale(w)) for w, m in self._learnt.items()}
        return {**self._fixed, **learnt}

    def rows(self) -> dict[str, QuantizedRows]:
        """Return the integers and scales as they are now, by the name of the weight."""
        with torch.no_grad():
            return {w: m.rows(self._scale(w)) for w, m in self._learnt.items()}

    def _scale(self, weight: str) -> Tensor:
        """Return the row scales: in a joint cell, rows of w_ih have those of the rows of w_hh."""
        own = self._learnt[weight].scale()
        n_shared = self._n_shared.get(weight, 0)
        if not n_shared:
            return own
        of_h = self._learnt[f"{weight.rpartition('.')[0]}.w_hh"].scale()
        return torch.cat([of_h[:n_shared], own[n_shared:]])


def _n_joint_rows(site: Site, model: StepModel) -> int:
    kind = CELLS[site.node_kind]
    return kind.n_joint_gates * len(site.floats(model)) // len(kind.gates)


def _learnt(values: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)
