"""Linear layers packed for a CPU: fp16 weights, or int8 weights and activations behind a rotation.

`pack(weight, bias, precision)` gives a function x -> x W^T + b. Every packed layer gives a row the
same bits however many rows go through with it (tests/test_packed.py), so a block that is verified
in one forward holds what its tokens would have given one by one.
"""

import math
import warnings
from functools import cache

import torch
import torch.nn.functional as F

INT8 = "int8 rotated"
FP16 = "fp16"
FP32_PACKED = "fp32 packed"
FP32 = "fp32"
BF16 = "bf16"

BYTES = {INT8: 1, FP16: 2, FP32_PACKED: 4, FP32: 4, BF16: 2}  # of one weight
PACKED = (INT8, FP16, FP32_PACKED)  # copies in an order of their own
ORDER = (INT8, FP16, FP32_PACKED, FP32)  # what is tried on a CPU, from a wish on

# A matrix product of fewer rows goes to kernels that add in another order, so that a row's last
# bits would depend on how many rows go with it.
FEWEST_ROWS = 8
LARGEST_BLOCK = 128
# From so many rows on, a processor's matrix unit (AMX) is faster; with fewer, reading the weights
# takes the time.
ROWS_FOR_AMX = 8


def rotation_block(n, fewest=FEWEST_ROWS):
    """Side of the Hadamard blocks that rotate n numbers: a power of two up to 128 that divides n.

    A row of n numbers makes at least `fewest` blocks where n allows it: what is rotated at run time
    is a matrix product with that many rows.
    """
    block = LARGEST_BLOCK
    while block > 1 and (n % block or n // block < fewest):
        block //= 2
    return block


@cache
def hadamard(n):
    """The orthogonal, symmetric Hadamard matrix (n, n) of Sylvester; n is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(n)


def rotate(x, block):
    """x (…, n) with every block of its last dimension multiplied by the Hadamard matrix."""
    if block == 1:
        return x
    return (x.reshape(-1, block) @ hadamard(block)).view(x.shape)


class Int8:
    """y = x W^T + b in integer arithmetic: weights with a scale per output, x with a scale per row.

    Integers add exactly, so a row's result depends on nothing but the row. Rounding to 8 bits needs
    inputs of even size: whoever builds this layer has rotated x and W (`rotate`), so that no input
    column stands out (QuaRot, arXiv 2404.00456).
    """

    def __init__(self, weight, bias=None, amx=None):
        """weight (outputs, inputs) and bias (outputs,), fp32; the weight is already rotated.

        amx: whether many rows go to the processor's matrix unit, which reads a copy of its own;
        None is where it has one.
        """
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        zero = torch.zeros(len(scale), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # deprecated; few rows need it still
            rounded = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = bias
        # Without VNNI pairs of products are added in 16 bits, where 8 bits times 8 bits overflow.
        self.largest = 127 if torch.cpu._is_vnni_supported() else 63
        self.many = None
        if has_amx() if amx is None else amx:
            packed = torch.ops.onednn.qlinear_prepack(rounded.int_repr(), None)
            self.many = (packed, scale, zero)

    def __call__(self, x, times=None):
        """x (…, inputs) fp32 -> (…, outputs), of x · times where a factor per row (…, 1) is given.

        Rounding does not see such a factor, so a norm need not be applied before it.
        """
        # x_i = size · u_i with |u_i| <= 1;  y = size · (round(127 u) · round(W / s)) · s / 127 + b
        size = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30)
        rows = x.numel() // x.shape[-1]
        product = self._of_many if self.many and rows >= ROWS_FOR_AMX else self._of_few
        y = product(x / size, 1 / self.largest, self.largest + 1)
        if times is not None:
            size.mul_(times)
        return y.mul_(size) if self.bias is None else torch.addcmul(self.bias, y, size)

    def _of_few(self, u, step, zero):
        """u W^T with u in whole steps, of which `zero` stands for 0."""
        return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            u, step, zero, self.packed
        )

    def _of_many(self, u, step, zero):
        """The same to the bit, in oneDNN's kernels for the matrix unit."""
        whole = torch.quantize_per_tensor(u, step, zero, torch.quint8).int_repr()
        return torch.ops.onednn.qlinear_pointwise(
            whole, step, zero, *self.many, None, 1.0, 0, torch.float32, "none", [], ""
        )


@cache
def has_amx():
    """Whether int8 layers gain from a matrix unit here, with the bits that they have without it.

    Both kernels add integers; the bits are compared because what multiplies the sums by their
    scales is oneDNN's, and ONEDNN_MAX_CPU_ISA may have switched the unit off.
    """
    if not torch.cpu._is_amx_tile_supported():
        return False
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(2, 64, 256, generator=draw)
    with_unit, without = (Int8(weight, amx=amx) for amx in (True, False))
    return torch.equal(with_unit(x), without(x))


def fp16(weight, bias=None):
    """Weights rounded to fp16, products and sums in fp32."""
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


def fp32_packed(weight, bias=None):
    """fp32 in oneDNN's own order, which spares a block of tokens the repacking."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def fp32(weight, bias=None):
    """torch's own layer."""
    return lambda x: F.linear(x, weight, bias)


def bf16(weight, bias=None):
    """torch's own layer on bf16 weights and inputs, for a GPU."""
    weight = weight.bfloat16()
    if bias is not None:
        bias = bias.bfloat16()
    return lambda x: F.linear(x, weight, bias)


PACKERS = {INT8: Int8, FP16: fp16, FP32_PACKED: fp32_packed, FP32: fp32, BF16: bf16}


def input_dtype(precision):
    """What a layer of this precision takes."""
    return torch.bfloat16 if precision == BF16 else torch.float32


def works(precision):
    """Whether this machine and this torch can pack and run a layer of this precision."""
    weight = torch.eye(64)
    x = torch.ones(1, 64, dtype=input_dtype(precision))
    try:
        return torch.allclose(PACKERS[precision](weight)(x), x, atol=0.02)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def best(wanted):
    """The precision that is wanted, or the next in ORDER that works here."""
    return next(p for p in ORDER[ORDER.index(wanted) :] if works(p))


def pack(weight, bias, precision):
    """A function x (…, inputs) -> x W^T + b (…, outputs) of one of the precisions above."""
    weight = weight.detach().float()
    if bias is not None:
        bias = bias.detach().float()
    return PACKERS[precision](weight, bias)
