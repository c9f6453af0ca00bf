"""What a network pickle may hold, as plain values; and the code that makes them where a file names a function.

Each builder stands for one name of the official files and checks its arguments; none calls anything that a file names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from medgan.errors import WeightsError

if TYPE_CHECKING:
    import torch

    from medgan.networks.unpickle import Reader

MOST_DIMENSIONS = 8

MAGIC, TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
FIX = "take the file from its publisher again; only official StyleGAN2 network pickles can be read"


def refuse(reason: str) -> NoReturn:
    """Refuse the file being read.

    Raises:
        WeightsError: Always.
    """
    raise WeightsError(f"the network file is refused: {reason}", fix=FIX)


def shown(value: Any) -> str:
    """A word from the file, harmless in a terminal and short."""
    return ascii(value)[1:-1][:80] if isinstance(value, str) else type(value).__name__


@dataclass(frozen=True)
class Global:
    """A name in the file: never looked up anywhere."""

    module: str
    name: str


@dataclass(frozen=True)
class Record:
    """A persistent module: its class's name and its `__dict__`; its source text was skipped."""

    class_name: str
    state: dict[str, Any]


@dataclass
class TFNetwork:
    """A network of the TensorFlow code: the state it was saved with."""

    state: dict[str, Any] | None = None


@dataclass
class Dtype:
    """A plain numpy number type, as numpy writes it: `f8`, little-endian."""

    code: str


@dataclass
class Array:
    """A numpy array not yet looked at."""

    code: str = ""
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    def numpy(self) -> Any:
        """The array as float32, copied."""
        import numpy as np

        if self.code not in ("f2", "f4", "f8"):
            refuse(f"an array of type {shown(self.code) or 'nothing'} where weights should be")
        return np.frombuffer(self.data, dtype="<" + self.code).reshape(self.shape, order="F" if self.fortran else "C").astype(np.float32)


@dataclass(frozen=True)
class Storage:
    """Raw numbers of one torch type."""

    kind: str
    numel: int
    data: memoryview


@dataclass(frozen=True)
class Stored:
    """A torch tensor not yet looked at: a view into a storage, already known to lie inside it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers in the file."""
        return math.prod(self.size) * STORAGES[self.storage.kind]

    def tensor(self) -> torch.Tensor:
        """The tensor as float32, copied."""
        import numpy as np
        import torch

        types = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "BFloat16Storage": "<i2"}
        kind = self.storage.kind
        if kind not in types:
            refuse(f"a tensor of {kind} where weights should be")
        flat = np.frombuffer(self.storage.data, dtype=types[kind])
        strides = [step * flat.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides)
        found = torch.from_numpy(view.copy())
        return (found.view(torch.bfloat16) if kind == "BFloat16Storage" else found).float()


@dataclass(frozen=True)
class Reference:
    """The persistent id of a storage in an inner stream."""

    pid: Any


class EasyDict(dict[str, Any]):
    """The official code's dictionary with attributes, here without any."""


STORAGES = {
    "FloatStorage": 4,
    "HalfStorage": 2,
    "DoubleStorage": 8,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "BFloat16Storage": 2,
}
"""torch's storage types -> bytes of one number."""

NUMBERS = {"f2": 2, "f4": 4, "f8": 8, "i1": 1, "i2": 2, "i4": 4, "i8": 8, "u1": 1, "u2": 2, "u4": 4, "u8": 8, "b1": 1}
"""numpy's plain types -> bytes of one number; no objects, no structures."""


def _is_count(value: Any, most: int = 2**40) -> bool:
    return type(value) is int and 0 <= value <= most


def texts(values: Any) -> list[str]:
    """Values that must all be text."""
    if any(type(value) is not str for value in values):
        refuse("a set of anything but names")
    return list(values)


def _persistent_object(reader: Reader, meta: Any) -> Record:  # noqa: ARG001
    if not isinstance(meta, dict) or meta.get("type") != "class":
        refuse("a persistent object that is no class")
    name, state = meta.get("class_name"), meta.get("state")
    if type(name) is not str or not isinstance(state, dict):
        refuse("a persistent object without class name or state")
    return Record(name, state)


def _dictionary(reader: Reader, *pairs: Any) -> dict[str, Any]:  # noqa: ARG001
    if pairs:
        refuse("an ordered dictionary made from values")
    return {}


def _set(reader: Reader, values: Any = ()) -> set[str]:  # noqa: ARG001
    if type(values) not in (list, tuple):
        refuse("a set made from no list")
    return set(texts(values))


def _encode(reader: Reader, text: Any, encoding: Any) -> memoryview:
    if type(text) is not str or encoding != "latin1":
        refuse("bytes in another form than protocol 2 writes them")
    reader.spend(len(text))
    return memoryview(text.encode("latin1"))


def _storage(reader: Reader, blob: Any) -> Storage:
    """One storage in torch.save's old stream: magic, protocol, machine, persistent id, keys, count, raw numbers."""
    if type(blob) is not memoryview:
        refuse("a storage that is no bytes")
    stream = type(reader)(blob, reader)
    if stream.load() != MAGIC or stream.load() != TORCH_PROTOCOL:
        refuse("a storage that is no stream of torch.save's old form")
    machine = stream.load()
    if type(machine) is not dict or machine.get("little_endian") is not True:
        refuse("a storage of a big-endian machine")
    reference = stream.load()
    pid = reference.pid if isinstance(reference, Reference) else None
    if type(pid) is not tuple or len(pid) != 6:
        refuse("a stream without a storage")
    word, kind, key, place, numel, view = pid
    if type(word) is not str or word != "storage" or not isinstance(kind, Global) or type(key) is not str or type(place) is not str:
        refuse("a stream of anything but a storage")
    if view is not None or not _is_count(numel):
        refuse("a storage that is a view, or of no size")
    keys = stream.load()
    if type(keys) is not list or len(keys) != 1 or type(keys[0]) is not str or keys[0] != key:
        refuse("a stream of several storages")
    if stream.number(8) != numel:
        refuse("a storage of two sizes")
    data = stream.take(numel * STORAGES[kind.name])
    if stream.position != len(stream.data):
        refuse("bytes behind a storage")
    return Storage(kind.name, numel, data)


def _tensor(reader: Reader, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Stored:  # noqa: ARG001
    if not isinstance(storage, Storage) or not _is_count(offset) or len(rest) > 3:
        refuse("a tensor without a storage")
    for numbers in (size, stride):
        if type(numbers) is not tuple or len(numbers) > MOST_DIMENSIONS or not all(_is_count(n) for n in numbers):
            refuse("a tensor of impossible size or stride")
    if len(size) != len(stride):
        refuse("a tensor of impossible size or stride")
    # A stride of 0 makes many numbers of one: no more may come out than lie there.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > storage.numel or (math.prod(size) and last >= storage.numel):
        refuse("a tensor that reaches outside of its storage")
    return Stored(storage, offset, size, stride)


def _parameter(reader: Reader, tensor: Any, *rest: Any) -> Stored:  # noqa: ARG001
    if not isinstance(tensor, Stored) or len(rest) > 3:
        refuse("a parameter that is no tensor")
    return tensor


def _dtype(reader: Reader, code: Any, *flags: Any) -> Dtype:  # noqa: ARG001
    if type(code) is not str or code not in NUMBERS or len(flags) != 2 or any(type(flag) not in (int, bool) for flag in flags):
        refuse(f"numbers of type {shown(code)}")
    return Dtype(code)


def check_dtype(dtype: Dtype, state: Any) -> None:
    """Compare the state that numpy gives a number type: little-endian and plain."""
    # (version, byte order, subarray, names, fields, size, alignment, flags)
    if type(state) is not tuple or len(state) != 8 or type(state[1]) is not str or state[1] not in ("<", "|"):
        refuse(f"numbers of type {dtype.code} in another byte order than little-endian")
    if any(part is not None for part in state[2:5]):
        refuse("numbers in a structure")


def _scalar(reader: Reader, dtype: Any, data: Any) -> float | int | bool:  # noqa: ARG001
    import numpy as np

    if not isinstance(dtype, Dtype) or type(data) is not memoryview or len(data) != NUMBERS[dtype.code]:
        refuse("a number whose size is not that of its type")
    return np.frombuffer(data, dtype="<" + dtype.code)[0].item()


def _array(reader: Reader, cls: Any, shape: Any, code: Any) -> Array:  # noqa: ARG001
    if (
        not isinstance(cls, Global)
        or (cls.module, cls.name) != ("numpy", "ndarray")
        or type(shape) is not tuple
        or type(code) is not memoryview
    ):
        refuse("an array of a class that is not numpy's own")
    return Array()


def fill_array(array: Array, state: Any) -> None:
    """Give an array the state that numpy wrote, once its size is known to be that of its bytes."""
    # (version, shape, dtype, Fortran order, raw numbers)
    if type(state) is not tuple or len(state) != 5:
        refuse("an array without its numbers")
    _, shape, dtype, fortran, data = state
    if not isinstance(dtype, Dtype) or type(fortran) is not bool or type(data) is not memoryview:
        refuse("an array without its numbers")
    if type(shape) is not tuple or len(shape) > MOST_DIMENSIONS or not all(_is_count(n) for n in shape):
        refuse("an array of impossible shape")
    if math.prod(shape) * NUMBERS[dtype.code] != len(data):
        refuse("an array whose size is not that of its numbers")
    array.code, array.shape, array.fortran, array.data = dtype.code, shape, fortran, data


BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    ("collections", "OrderedDict"): _dictionary,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("_codecs", "encode"): _encode,
}
"""What a file may seem to call -> what is done instead: checked construction of a plain value."""

NEW: dict[tuple[str, str], Callable[[], Any]] = {
    ("dnnlib.util", "EasyDict"): EasyDict,
    ("dnnlib.tflib.network", "Network"): TFNetwork,
}
"""Classes that a file may make an empty object of."""

NAMES = {*BUILDERS, *NEW, ("numpy", "ndarray")}
STREAM_NAMES = {("torch", name) for name in STORAGES}
