"""A pretend GPU: tensors that say cuda:0, compute on the CPU, and are as strict as CUDA's.

    with PretendDevice():
        x = torch.zeros(3, device="cuda")
        x + torch.zeros(3)          # refused, as a GPU does
        HOST.reads                  # how often the host has had to wait for the device

`PretendTensor` wraps a CPU tensor. Every operator on it comes to `__torch_dispatch__`, which checks
the devices of what goes in, counts what the host reads, and lets the CPU compute. So results are
equal to the CPU's to the bit. `PretendDevice` is a mode that answers `device="cuda"`.

Which devices may meet is known from these places:

- torch's table of operators, native_functions.yaml, which torch installs (package torchgen). Where
  an operator does not say `device_check: NoCheck`, torchgen/dest/register_dispatch_key.py writes a
  check into its CUDA kernel: all of its tensors on one device, tensors of no dimension too.
- "NoCheck # TensorIterator" means that ATen/TensorIterator.cpp (compute_types) checks: one device,
  but one input of no dimension may be on the CPU.
- `where` moves every input of no dimension to the device (ATen/native/TensorCompare.cpp).
- Indexing moves index tensors from the CPU to the indexed tensor's device, not the other way. A
  value that is assigned has to be there, unless it has no dimension
  (ATen/native/TensorAdvancedIndexing.cpp, IndexingUtils.h).
- `copy_`, and so assignment to a slice, and `to` cross devices.

tests/test_gpu_path.py holds these rules against torch's own model of them (FakeTensor), and against
a real GPU where there is one. What is stricter here than a GPU: an operator that torch composes of
others takes no CPU tensor of no dimension, unless the table names it.
"""

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
MEMORY = 80 * 2**30  # bytes that it says it has


@dataclass
class Host:
    """What the host has asked of the device since the process began."""

    reads: int = 0  # times a value came to the host: it waits until the device has computed it
    waits: int = 0  # calls of torch.cuda.synchronize


HOST = Host()


class PretendTensor(torch.Tensor):
    """A tensor that says it is on cuda:0 and keeps its values in a CPU tensor, `inside`."""

    device = DEVICE
    is_cuda = True
    is_cpu = False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
        )

    def __init__(self, inside):
        self.inside = inside

    def __repr__(self, **options):
        return f"PretendTensor({tuple(self.shape)}, {self.dtype})"

    @property
    def data(self):
        return PretendTensor(self.inside.detach())

    @data.setter
    def data(self, other):
        torch.Tensor.data.__set__(self, other)
        self.inside = other.inside

    def get_device(self):
        return DEVICE.index

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        refuse_strangers(operator, args, kwargs)
        HOST.reads += reads_of(operator, args, kwargs)
        # An operator that works in place returns what it was given: the same wrapper again.
        known = {}
        args = [_inside(value, known) for value in args]
        kwargs = {name: _inside(value, known) for name, value in kwargs.items()}
        return _outside(operator(*args, **kwargs), known)


def _inside(value, known):
    """An argument of an operator with the tensors that the CPU knows; `known` gets the wrappers."""
    if isinstance(value, PretendTensor):
        known[id(value.inside)] = value
        return value.inside
    if isinstance(value, (list, tuple)):
        return type(value)([_inside(x, known) for x in value])
    return value


def _outside(result, known):
    """What an operator returned, with its tensors on the device."""
    if isinstance(result, torch.Tensor):
        return known[id(result)] if id(result) in known else PretendTensor(result)
    if isinstance(result, (list, tuple)):
        return type(result)([_outside(x, known) for x in result])
    return result


# ---- what may meet -----------------------------------------------------------------------------

ANYWHERE = ("copy_", "_to_copy", "to")
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")


@cache
def element_wise():
    """Names of the operators whose devices TensorIterator checks, like 'add.Tensor'."""
    table = files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text()
    names = set()
    for entry in table.split("\n- func: ")[1:]:
        name = entry[: entry.index("(")]
        if re.search(r"device_check: NoCheck\s+# TensorIterator", entry):
            names.add(name)
    return names


def refuse_strangers(operator, args, kwargs):
    """Raise what a GPU raises where tensors on the CPU meet those on the device."""
    inputs = _tensors(operator, args, kwargs)
    strangers = [(argument, x) for argument, x in inputs if not isinstance(x, PretendTensor)]
    if not strangers:
        return
    name = _name(operator)
    if name in ANYWHERE:
        return
    if name in INDEXING:
        indexed = inputs[0][1]
        if not isinstance(indexed, PretendTensor):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        strangers = [
            (argument, x) for argument, x in strangers if argument.name != "indices" and x.dim() > 0
        ]
    elif name == "where":
        strangers = [(argument, x) for argument, x in strangers if x.dim() > 0]
    elif name.startswith("masked_fill"):
        strangers = [(argument, x) for argument, x in strangers if argument.name != "value"]
    elif _full_name(operator) in element_wise():
        scalars = [x for argument, x in strangers if x.dim() == 0 and not _written(argument)]
        if len(scalars) == len(strangers) == 1:
            strangers = []
    if strangers:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! (argument {strangers[0][0].name} of {_full_name(operator)})"
        )


def _tensors(operator, args, kwargs):
    """Every tensor among the arguments of an operator, with what its schema says of it."""
    found = []
    for place, argument in enumerate(_arguments(operator)):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        for x in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(x, torch.Tensor):
                found.append((argument, x))
    return found


@cache
def _arguments(operator):
    return operator._schema.arguments


def _written(argument):
    return argument.alias_info is not None and argument.alias_info.is_write


@cache
def _name(operator):
    return operator._schema.name.removeprefix("aten::")


@cache
def _full_name(operator):
    name = _name(operator)
    overload = operator._schema.overload_name
    return f"{name}.{overload}" if overload else name


# ---- what the host reads -----------------------------------------------------------------------

# Operators that bring a value to the host, or learn a size from one and have to wait for it.
READING = (
    "item",
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "nonzero_numpy",
    "argwhere",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
)


def reads_of(operator, args, kwargs):
    """How often an operator makes the host wait for the device."""
    name = _name(operator)
    if name in READING:
        return 1
    if name == "copy_" and not isinstance(args[0], PretendTensor):
        return 1
    if name == "repeat_interleave":
        times = [argument.name == "repeats" for argument, _ in _tensors(operator, args, kwargs)]
        return int(any(times) and kwargs.get("output_size") is None)
    if name in INDEXING:
        return _masks(operator, args, kwargs)
    return 0


def _masks(operator, args, kwargs):
    """Index tensors that are masks: what is selected has a size that only the device knows.

    A number that is assigned through one mask becomes a masked_fill, which has no such size.
    """
    inputs = _tensors(operator, args, kwargs)
    masks = sum(
        argument.name == "indices" and x.dtype in (torch.bool, torch.uint8)
        for argument, x in inputs
    )
    values = [x for argument, x in inputs if argument.name == "values"]
    filled = values and not isinstance(values[0], PretendTensor) and values[0].numel() == 1
    return 0 if masks == 1 and filled else masks


# ---- device="cuda" -----------------------------------------------------------------------------


class PretendDevice(TorchFunctionMode):
    """Inside, `device="cuda"` gives PretendTensors, and torch.cuda says that there is a GPU."""

    def __enter__(self):
        self.patches = ExitStack()
        answers = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "mem_get_info": lambda device=None: (MEMORY, MEMORY),
            "current_device": lambda: DEVICE.index,
            "get_device_name": lambda device=None: "a pretend GPU",
            "synchronize": _wait,
            "Event": PretendEvent,
        }
        for name, answer in answers.items():
            self.patches.enter_context(mock.patch.object(torch.cuda, name, answer))
        # Module.to would else write the wrapper into the old parameter, which then has no memory.
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        self.patches.callback(_overwrite, overwrites)
        _overwrite(True)
        return super().__enter__()

    def __exit__(self, *error):
        self.patches.close()
        return super().__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in MOVES:
            return MOVES[function](function, *args, **kwargs)
        wanted = kwargs.get("device")
        if wanted is None or torch.device(wanted).type not in ("cpu", "cuda"):
            return function(*args, **kwargs)
        result = function(*args, **(kwargs | {"device": "cpu"}))
        if torch.device(wanted).type == "cuda":
            return _on_device(result)
        if isinstance(result, PretendTensor):
            HOST.reads += 1
            return result.inside
        return result


class PretendEvent:
    """A place in the device's queue, which here is always empty: the time at which it was left."""

    def __init__(self, enable_timing=False):
        self.since = None

    def record(self, stream=None):
        self.since = time.perf_counter()

    def elapsed_time(self, later):
        """Milliseconds."""
        return 1000 * (later.since - self.since)


_overwrite = torch.__future__.set_overwrite_module_params_on_conversion


def _wait(device=None):
    HOST.waits += 1


def _on_device(x):
    return x if isinstance(x, PretendTensor) else PretendTensor(x.detach())


def _to(function, x, *args, **kwargs):
    """Tensor.to(device, dtype), to(dtype) or to(other), with the rest by name."""
    device = kwargs.pop("device", None)
    dtype = kwargs.pop("dtype", None)
    for given in args:
        if isinstance(given, torch.Tensor):
            device, dtype = given.device, given.dtype
        elif isinstance(given, torch.dtype):
            dtype = given
        elif isinstance(given, (str, torch.device)) or (type(given) is int and device is None):
            device = given
    device = x.device if device is None else torch.device(device)
    dtype = dtype or x.dtype
    if device.type == x.device.type or "meta" in (device.type, x.device.type):
        return function(x, device=None if x.is_cuda else device, dtype=dtype, **kwargs)
    if device.type == "cuda":
        return PretendTensor(x.detach().to(dtype).clone())
    HOST.reads += 1
    return x.inside.to(dtype).clone()


def _cpu(function, x, **kwargs):
    return _to(torch.Tensor.to, x, "cpu")


def _cuda(function, x, device=None, **kwargs):
    return _to(torch.Tensor.to, x, DEVICE)


def _tolist(function, x):
    if not isinstance(x, PretendTensor):
        return function(x)
    HOST.reads += 1
    return x.inside.tolist()


def _numpy(function, x, *args, **kwargs):
    if not isinstance(x, PretendTensor):
        return function(x, *args, **kwargs)
    raise TypeError(
        "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
        "host memory first."
    )


MOVES = {
    torch.Tensor.to: _to,
    torch.Tensor.cpu: _cpu,
    torch.Tensor.cuda: _cuda,
    torch.Tensor.tolist: _tolist,
    torch.Tensor.numpy: _numpy,
    torch.Tensor.__array__: _numpy,
}
