"""A pickle read as data: an interpreter of its own that can make values and records, and call nothing.

Python's unpickler calls what a file names; a list of allowed names still leaves it a dozen ways to call, to set attributes
and to exhaust memory. Here a name is only a name. What a whitelisted one would have built is a row of `BUILDERS` in records.py,
which checks its arguments; any other name, any other opcode and any number out of bounds refuses the file.
Why so: docs/decisions/0009-network-files.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from medgan.networks.records import (
    BUILDERS,
    NAMES,
    NEW,
    STREAM_NAMES,
    Array,
    Dtype,
    EasyDict,
    Global,
    Reference,
    TFNetwork,
    check_dtype,
    fill_array,
    refuse,
    shown,
    texts,
)

# A file of 1024 px made as the official ones has 52,308 steps and 0.38 GB.
MOST_STEPS = 500_000
MOST_BYTES = 2 * 2**30
# The longest number in an official file is torch.save's magic, 10 bytes.
LONG_BYTES = 16


class Reader:
    """Reads pickles of protocols 2 to 5 from a buffer.

    Args:
        data: The whole file, or an inner stream.
        parent: The reader of the file around an inner stream, with which it shares its count of steps.
    """

    def __init__(self, data: memoryview, parent: Reader | None = None) -> None:
        self.data = data
        self.position = 0
        self.outer = parent or self
        self.steps = 0
        self.copied = 0
        self.inner = parent is not None
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []

    def load(self) -> Any:
        """The next pickle; the position is then behind its STOP.

        Raises:
            WeightsError: It holds anything but data and whitelisted names.
        """
        self.memo, self.stack, self.marks = {}, [], []
        if self.take(1) != b"\x80" or not 2 <= self.number(1) <= 5:
            refuse("it does not begin as a pickle of protocol 2 to 5")
        while True:
            self.outer.steps += 1
            if self.outer.steps > MOST_STEPS:
                refuse(f"more than {MOST_STEPS:,} steps")
            code = self.number(1)
            if code == STOP:
                break
            step = STEPS.get(code)
            if step is None:
                refuse(f"opcode 0x{code:02x}, which no official file has")
            step(self)
        if len(self.stack) != 1 or self.marks:
            refuse("its end leaves values over")
        return self.stack.pop()

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self.data):
            refuse("it ends in the middle (truncated)")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, count: int) -> int:
        """An unsigned little-endian number of `count` bytes."""
        return int.from_bytes(self.take(count), "little")

    def pop(self) -> Any:
        """The topmost value."""
        if not self.stack:
            refuse("it takes a value where there is none")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        """The topmost value, which stays and must be of a type."""
        if not self.stack or not isinstance(self.stack[-1], kind):
            refuse(f"it fills something that is no {kind.__name__}")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """All values since the last mark."""
        if not self.marks:
            refuse("it takes values since a mark that is not there")
        values, self.stack = self.stack, self.marks.pop()
        return values

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def text(self, width: int) -> None:
        # Lone surrogates are what Python's own pickler writes for undecodable file names.
        self.stack.append(str(self.take(self.number(width)), "utf-8", "surrogatepass"))

    def block(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)))

    def long(self, width: int) -> None:
        count = self.number(width)
        if count > LONG_BYTES:
            refuse("a number of more than 16 bytes")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def line(self) -> str:
        # Looked for within 256 bytes: no name of the whitelist is longer, and a search to the end could be repeated at will.
        end = bytes(self.data[self.position : self.position + 256]).find(b"\n")
        if end < 0:
            refuse("a name without an end")
        return str(self.take(end + 1)[:-1], "utf-8")

    def put(self, index: int) -> None:
        if not self.stack:
            refuse("it remembers a value that is not there")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            refuse("it recalls a value that it did not remember")
        self.stack.append(self.memo[index])

    def wrap(self, count: int) -> None:
        if len(self.stack) < count:
            refuse("it takes a value where there is none")
        values = tuple(self.stack[-count:])
        self.stack[-count:] = [values]

    def wrap_since_mark(self) -> None:
        values = tuple(self.pop_mark())
        self.stack.append(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        if len(values) % 2:
            refuse("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Only text: the hash of nested tuples recurses in C, that of chosen numbers collides.
            if type(key) is not str:
                refuse(f"a key of type {type(key).__name__}")
            target[key] = value

    def append_items(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def add_items(self, values: list[Any]) -> None:
        self.top(set).update(texts(values))

    def spend(self, count: int) -> None:
        """Count bytes that are copied: what is remembered once could be copied at will."""
        self.outer.copied += count
        if self.outer.copied > 2 * len(self.outer.data):
            refuse("its values are larger than the file")

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            refuse("a name that is no text")
        allowed = (module, name) in (STREAM_NAMES if self.inner else NAMES)
        if not allowed:
            refuse(f"it names {shown(module)}.{shown(name)}, which no official file does")
        self.stack.append(Global(module, name))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or type(arguments) is not tuple:
            refuse("it calls something that is no name")
        builder = BUILDERS.get((function.module, function.name))
        if builder is None or self.inner:
            refuse(f"it calls {shown(function.name)}")
        self.stack.append(builder(self, *arguments))

    def new(self) -> None:
        arguments, cls = self.pop(), self.pop()
        made = NEW.get((cls.module, cls.name)) if isinstance(cls, Global) else None
        if made is None or type(arguments) is not tuple or arguments:
            refuse("it makes an object of a class that is not its own")
        self.stack.append(made())

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, TFNetwork) and target.state is None and type(state) is dict:
            target.state = state
        elif isinstance(target, Array) and not target.code:
            fill_array(target, state)
        elif isinstance(target, Dtype):
            check_dtype(target, state)
        elif not isinstance(target, EasyDict) or (state is not None and (type(state) is not dict or state)):
            refuse("it changes the inside of an object")
        self.stack.append(target)

    def persistent(self) -> None:
        if not self.inner:
            refuse("a reference to something outside of it (persistent id)")
        self.stack.append(Reference(self.pop()))


STOP = ord(".")
STEPS: dict[int, Callable[[Reader], Any]] = {
    ord("N"): lambda r: r.stack.append(None),
    0x88: lambda r: r.stack.append(True),
    0x89: lambda r: r.stack.append(False),
    ord("J"): lambda r: r.stack.append(int.from_bytes(r.take(4), "little", signed=True)),
    ord("K"): lambda r: r.stack.append(r.number(1)),
    ord("M"): lambda r: r.stack.append(r.number(2)),
    0x8A: lambda r: r.long(1),
    0x8B: lambda r: r.long(4),
    ord("G"): lambda r: r.stack.append(struct.unpack(">d", r.take(8))[0]),
    ord("X"): lambda r: r.text(4),
    0x8C: lambda r: r.text(1),
    0x8D: lambda r: r.text(8),
    ord("B"): lambda r: r.block(4),
    ord("C"): lambda r: r.block(1),
    0x8E: lambda r: r.block(8),
    ord("]"): lambda r: r.stack.append([]),
    ord("}"): lambda r: r.stack.append({}),
    ord(")"): lambda r: r.stack.append(()),
    0x8F: lambda r: r.stack.append(set()),
    ord("("): Reader.mark,
    ord("0"): lambda r: r.pop(),
    ord("1"): Reader.pop_mark,
    ord("t"): Reader.wrap_since_mark,
    0x85: lambda r: r.wrap(1),
    0x86: lambda r: r.wrap(2),
    0x87: lambda r: r.wrap(3),
    ord("a"): lambda r: r.append_items([r.pop()]),
    ord("e"): lambda r: r.append_items(r.pop_mark()),
    ord("s"): lambda r: r.set_items([r.pop(), r.pop()][::-1]),
    ord("u"): lambda r: r.set_items(r.pop_mark()),
    0x90: lambda r: r.add_items(r.pop_mark()),
    ord("c"): lambda r: r.name(r.line(), r.line()),
    0x93: lambda r: r.name(*[r.pop(), r.pop()][::-1]),
    ord("R"): Reader.reduce,
    0x81: Reader.new,
    ord("b"): Reader.build,
    ord("Q"): Reader.persistent,
    ord("q"): lambda r: r.put(r.number(1)),
    ord("r"): lambda r: r.put(r.number(4)),
    0x94: lambda r: r.put(len(r.memo)),
    ord("h"): lambda r: r.get(r.number(1)),
    ord("j"): lambda r: r.get(r.number(4)),
    0x95: lambda r: r.take(8),  # FRAME: its length is a hint for buffered readers, of no use here
}


def read_pickle(data: bytes) -> tuple[Any, Reader]:
    """The value of a network pickle, and its reader (which counts what is copied out of it later).

    Raises:
        WeightsError: It is another kind of file, damaged, too large, or asks for anything that no official file does.
    """
    for start, what in (
        (b"PK", "a zip archive (torch.save or TorchScript)"),
        (b"\x1f\x8b", "compressed"),
        (b"\x80\x02\x8a\x0a", "a torch.save file"),
    ):
        if data.startswith(start):
            refuse(f"it is {what}, not a pickle of networks")
    reader = Reader(memoryview(data))
    try:
        value = reader.load()
    except (ValueError, TypeError, OverflowError, LookupError, struct.error, RecursionError, MemoryError) as error:
        refuse(f"it is damaged ({type(error).__name__})")
    if reader.position != len(data):
        refuse("bytes behind its end")
    return value, reader
