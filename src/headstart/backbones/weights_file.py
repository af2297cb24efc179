"""Reading tensors from weights files without torch: .safetensors, .onnx, and the two formats of `torch.save`.

A file of `torch.save` contains a pickle. Its opcodes are interpreted here, by a reader that knows tensors, storages,
dictionaries and plain values; a reference to anything else is refused, so nothing in the file can run.
"""

from __future__ import annotations

import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# First object of the older format, before the version of the protocol (torch/serialization.py).
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Opcodes of a state_dict are some thousands; a file of millions is not one.
_MAX_OPCODES = 2_000_000


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read every tensor of a weights file.

    Args:
        path: a .safetensors or .onnx file, or one of `torch.save` that contains a state_dict, alone or under 'state_dict',
            'model' or 'model_state'.

    Returns:
        Arrays by name, in the file's order; not contiguous where the file's are not.

    Raises:
        ValueError: if the file is none of these, is damaged, or refers to anything but tensors and plain values.
        OSError: if it cannot be read.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".onnx":
        return _read_onnx(path)
    found = _read_zip(path) if _is_zip(path) else _read_older(path)
    for wrapper in ("state_dict", "model", "model_state"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError("it contains no tensors by name")
    others = [name for name, tensor in found.items() if not isinstance(tensor, np.ndarray)]
    if others:
        raise ValueError(f"{others[0]!r} is no tensor")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(str(error)) from error


def _read_onnx(path: Path) -> dict[str, np.ndarray]:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        model = onnx.load_from_string(path.read_bytes())
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except (DecodeError, TypeError) as error:
        raise ValueError(f"it is no ONNX file: {error}") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\3\4"


def _read_zip(path: Path) -> Any:  # noqa: ANN401 - what the pickle contains
    content = BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "")
            if not index:
                raise ValueError("it has no data.pkl")
            folder = index.removesuffix("data.pkl")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("its entries are compressed, which torch.save never does")
            names = set(archive.namelist())
            if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
                raise ValueError("its numbers are not little-endian")

            def load(reference: tuple) -> _Storage:
                dtype, key, count = _reference(reference)
                return _Storage(np.frombuffer(archive.read(f"{folder}data/{key}"), dtype, count), count)

            return _resolve(_interpret(BytesIO(archive.read(index)), load))
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, NotImplementedError, struct.error) as error:
        raise ValueError(f"it is damaged: {error}") from error


def _read_older(path: Path) -> Any:  # noqa: ANN401 - what the pickle contains
    """The format before torch 1.6: five pickles, then the content of each storage behind its number of elements."""
    storages: dict[str, _Storage] = {}

    def note(reference: tuple) -> _Storage:
        dtype, key, count = _reference(reference)
        if len(reference) == 6 and reference[5] is not None:
            raise ValueError("it has views of storages, which is not supported")
        return storages.setdefault(key, _Storage(np.empty(0, dtype), count))

    stream = BytesIO(path.read_bytes())
    if _interpret(stream, note) != _MAGIC or _interpret(stream, note) != _PROTOCOL:
        raise ValueError("it is no file of torch.save")
    system = _interpret(stream, note)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    found = _interpret(stream, note)
    keys = _interpret(stream, note)
    if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
        raise ValueError("its list of storages does not match its tensors")
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(stream.read(8), "little", signed=True)
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} elements, where {storage.count} are expected")
        storage.values = np.frombuffer(stream.read(count * storage.values.dtype.itemsize), storage.values.dtype, count)
    return _resolve(found)


@dataclass
class _Storage:
    """A run of numbers that tensors are views of; of the older format empty until its content is read."""

    values: np.ndarray
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor whose storage may not be read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def resolve(self) -> np.ndarray:
        """The array, after checking that it lies within the storage.

        Raises:
            ValueError: if it does not.
        """
        values = self.storage.values
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError("a tensor's shape is damaged")
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and last >= len(values):
            raise ValueError("a tensor reaches beyond its storage")
        if math.prod(self.shape) > len(values):
            raise ValueError("a tensor has more elements than its storage")
        size = values.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, tuple(size * stride for stride in self.strides), writeable=False
        )


def _resolve(value: Any) -> Any:  # noqa: ANN401 - what the pickle contains
    """The same value with arrays in place of views."""
    if isinstance(value, _View):
        return value.resolve()
    if isinstance(value, dict):
        return {name: _resolve(each) for name, each in value.items()}
    return value


def _reference(value: Any) -> tuple[np.dtype, str, int]:  # noqa: ANN401 - what the pickle contains
    """The type, key and number of elements of a storage."""
    if not isinstance(value, tuple) or len(value) not in {5, 6} or value[0] != "storage":
        raise ValueError("it refers to something that is no storage")
    kind, key, count = value[1], value[2], value[4]
    if not isinstance(kind, _Name) or kind.module != "torch" or kind.name not in _DTYPES:
        raise ValueError(f"it has a storage of an unknown type: {kind}")
    if not isinstance(key, str) or not isinstance(count, int) or count < 0:
        raise ValueError("a storage's reference is damaged")
    return np.dtype(_DTYPES[kind.name]), key, count


@dataclass(frozen=True)
class _Name:
    """A name that the pickle refers to; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Mark:
    """Where the arguments of an opcode begin on the stack."""


def _interpret(stream: BinaryIO, load: Callable[[tuple], _Storage]) -> Any:  # noqa: ANN401 - what the pickle contains
    """Interpret one pickle of plain values and tensors, leaving the stream behind it.

    Raises:
        ValueError: if it has another opcode, refers to another name, or is damaged.
    """
    machine = _Machine(load)
    try:
        # Decoding a damaged string may warn of an invalid escape sequence; the name it gives is refused anyway.
        with warnings.catch_warnings(action="ignore"):
            machine.run(stream)
        value = machine.stack.pop()
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error
    return value


class _Machine:
    """The stack and memo of a pickle's program."""

    def __init__(self, load: Callable[[tuple], _Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._load = load

    def run(self, stream: BinaryIO) -> None:
        """Run the program up to its end."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number > _MAX_OPCODES:
                raise ValueError("it has too many opcodes")
            self.step(opcode.name, argument)

    def step(self, name: str, argument: Any) -> None:  # noqa: ANN401 - as the opcode has it
        """Run one opcode."""
        if name in _IGNORED:
            return
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _MEMO_PUTS:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            self.stack.append(self.memo[argument])
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[len(self.stack) - count :] = [tuple(self.stack[-count:])]
        elif name in {"GLOBAL", "STACK_GLOBAL"}:
            self._push_name(argument)
        else:
            self._change(name)

    def _push_name(self, argument: str | None) -> None:
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
        else:
            module, _, name = argument.partition(" ")
        found = _Name(module, name)
        if found not in _KNOWN and not (module == "torch" and name in _DTYPES):
            raise ValueError(f"it refers to {found}, which is no tensor; nothing of it was run")
        self.stack.append(found)

    def _change(self, name: str) -> None:
        match name:
            case "TUPLE":
                self.stack.append(tuple(self._marked()))
            case "SETITEM":
                value, key = self.stack.pop(), self.stack.pop()
                self._dictionary()[key] = value
            case "SETITEMS":
                found = self._marked()
                self._dictionary().update(zip(found[::2], found[1::2], strict=True))
            case "APPEND":
                value = self.stack.pop()
                self._list().append(value)
            case "APPENDS":
                found = self._marked()
                self._list().extend(found)
            case "BINPERSID":
                self.stack.append(self._load(self.stack.pop()))
            case "BUILD":
                # Attributes of an ordered dictionary: the versions that torch.nn keeps of its modules.
                self.stack.pop()
                self._dictionary()
            case "REDUCE":
                arguments, called = self.stack.pop(), self.stack.pop()
                self.stack.append(_KNOWN[called](*arguments))
            case _:
                raise ValueError(f"it has the opcode {name}, which tensors do not need; nothing of it was run")

    def _marked(self) -> list[Any]:
        """What stands on the stack above the last mark, taken off with it."""
        place = max(index for index, value in enumerate(self.stack) if isinstance(value, _Mark))
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _dictionary(self) -> dict:
        if not isinstance(self.stack[-1], dict):
            raise ValueError("it sets an item of something that is no dictionary")
        return self.stack[-1]

    def _list(self) -> list:
        if not isinstance(self.stack[-1], list):
            raise ValueError("it appends to something that is no list")
        return self.stack[-1]


def _tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _View:  # noqa: ANN401 - unused
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _View(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: _View, *_: Any) -> _View:  # noqa: ANN401 - unused
    return tensor


def _ordered(items: Any = ()) -> dict:  # noqa: ANN401 - pairs
    return dict(items)


_KNOWN: Mapping[_Name, Callable] = {
    _Name("collections", "OrderedDict"): _ordered,
    _Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Name("torch._utils", "_rebuild_parameter"): _parameter,
}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_PUSHED = frozenset(
    "BININT BININT1 BININT2 LONG1 INT LONG BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE "
    "SHORT_BINSTRING BINSTRING BINBYTES SHORT_BINBYTES".split()
)
_CONSTANTS: Mapping[str, Callable] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_MEMO_PUTS = frozenset({"BINPUT", "LONG_BINPUT", "MEMOIZE"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
