"""Files made to do harm: each is refused with E_WEIGHTS, and nothing happens.

Each attack was checked to be one: Python's own unpickler runs those that plant a file (test_the_attacks_are_real).
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medgan.errors import WeightsError
from medgan.networks.nvidia import read_official
from medgan.networks.shapes import expected_shapes
from medgan.networks.stylegan2 import Discriminator, Generator
from medgan.networks.unpickle import read_pickle
from tests.networks.official import (
    D_ARGUMENTS,
    G_ARGUMENTS,
    Call,
    EasyDict,
    Named,
    dumps,
    keywords,
    reconstruct,
    snapshot,
)

TENSOR = Named("torch._utils", "_rebuild_tensor_v2")
LOAD = Named("torch.storage", "_load_from_bytes")


def valid() -> dict:
    torch.manual_seed(0)
    G, D = Generator(**{**G_ARGUMENTS, "img_resolution": 8}), Discriminator(**{**D_ARGUMENTS, "img_resolution": 8})
    kwargs = keywords({**G_ARGUMENTS, "img_resolution": 8}, {**D_ARGUMENTS, "img_resolution": 8}, ada=True)
    return snapshot(G, D, copy.deepcopy(G), kwargs)


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


VALID = dumps(valid())


def planted(value: object, protocol: int = 4) -> bytes:
    """A whole official file with `value` under one more key, where nobody looks; without a memo the two parts do not mix."""
    return VALID[:-1] + text("more") + dumps(value, protocol, memo=False)[2:-1] + b"s."


def blob(
    count: int = 4,
    *,
    kind: str = "FloatStorage",
    numel: int | None = None,
    raw: bytes | None = None,
    magic: int = 0x1950A86A20F9469CFC6C,
    key: str = "1",
    keys: list | None = None,
    tail: bytes = b"",
    pid: object = None,
    view: object = None,
) -> bytes:
    """A storage in torch.save's old stream, with anything about it wrong that is asked for."""
    stream = dumps(magic, 2) + dumps(1001, 2) + dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    wanted = count if numel is None else numel
    pid = ("storage", Named("torch", kind), key, "cpu", wanted, view) if pid is None else pid
    stream += dumps(pid, 2)[:-1] + b"Q." + dumps([key] if keys is None else keys, 2)
    return stream + struct.pack("<q", wanted if wanted < 2**62 else 0) + (np.zeros(count, "<f4").tobytes() if raw is None else raw) + tail


def tensor(size=(4,), stride=(1,), offset=0, **about) -> Call:
    return Call(TENSOR, Call(LOAD, blob(**about)), offset, size, stride, False, OrderedDict())


def raw(body: bytes, protocol: int = 4) -> bytes:
    return bytes([0x80, protocol]) + body + b"."


def attacks(canary: Path) -> dict[str, bytes]:
    shell = f"touch {canary}"
    python = f"open({str(canary)!r}, 'w').close()"
    source = EasyDict(type="class", version=6, module_src=python, class_name="Generator", state={})
    scalar = Named("numpy._core.multiarray", "scalar")
    dtype = Named("numpy", "dtype")
    array = Call(Named("numpy._core.multiarray", "_reconstruct"), Named("numpy", "ndarray"), (0,), b"b")
    f8 = Call(dtype, "f8", False, True, state=(3, "<", None, None, None, -1, -1, 0))
    easy = Call(Named("dnnlib.util", "EasyDict"))
    return {
        "os.system": planted(Call(Named("os", "system"), shell)),
        "posix.system": planted(Call(Named("posix", "system"), shell)),
        "posix.system in protocol 2": planted(Call(Named("posix", "system"), shell), 2),
        "subprocess": planted(Call(Named("subprocess", "check_call"), ["touch", str(canary)])),
        "builtins.eval": planted(Call(Named("builtins", "eval"), f"{python}")),
        "builtins.exec": planted(Call(Named("builtins", "exec"), python)),
        "python 2 builtins": planted(Call(Named("__builtin__", "eval"), python), 2),
        "builtins.getattr": planted(Call(Named("builtins", "getattr"), Named("os", "system"), "__call__")),
        "a name that is never called": planted(Named("os", "system")),
        "dotted name": planted(Call(Named("collections", "OrderedDict.__init__.__globals__.get"), "sys")),
        "dotted module": planted(Named("collections.OrderedDict", "__init__")),
        "the official loader of storages in another module": planted(Call(Named("torch", "storage._load_from_bytes"), b"x")),
        "torch.load": planted(Call(Named("torch", "load"), "x")),
        "numpy.load": planted(Call(Named("numpy", "load"), "x", None, True)),
        "functools.partial": planted(Call(Named("functools", "partial"), Named("os", "system"), shell)),
        "copyreg._reconstructor": planted(Call(Named("copyreg", "_reconstructor"), Named("builtins", "object"))),
        "source that would plant a file, in a network of no tensors": dumps(
            {"G": Call(reconstruct, source), "D": Call(reconstruct, source), "G_ema": Call(reconstruct, source)}
        ),
        "source asked for by another type": planted(Call(reconstruct, EasyDict(type="module", module_src=python))),
        "pickle inside a storage": planted(Call(LOAD, dumps(Call(Named("os", "system"), shell), 2))),
        "names inside a storage": planted(Call(LOAD, blob(pid=("storage", Named("os", "system"), "1", "cpu", 4, None)))),
        "a call inside a storage": planted(Call(LOAD, blob(keys=[Call(Named("torch", "FloatStorage"))]))),  # type: ignore[list-item]
        "newobj of a class": raw(text("os") + text("PathLike") + b"\x93)\x81"),
        "newobj of a string": raw(text("x") + b")\x81"),
        "newobj with arguments": raw(text("dnnlib.util") + text("EasyDict") + b"\x93K\x01\x85\x81"),
        "newobj_ex": raw(text("dnnlib.util") + text("EasyDict") + b"\x93)}\x92"),
        "inst": raw(b"(ios\nsystem\n", 2),
        "obj": raw(b"(cos\nsystem\no", 2),
        "extension code": raw(b"\x82\x01"),
        "extension code of four bytes": raw(b"\x84\x01\x00\x00\x00"),
        "persistent id": raw(b"K\x01Q"),
        "persistent id as text": raw(b"P1\n", 2),
        "out-of-band buffer": raw(b"\x97", 5),
        "calling a call's result": raw(text("collections") + text("OrderedDict") + b"\x93)R)R"),
        "calling with a list": raw(text("collections") + text("OrderedDict") + b"\x93]R"),
        "attributes of a name": raw(text("dnnlib.util") + text("EasyDict") + b"\x93}" + text("__init__") + b"Nsb"),
        "attributes of a dictionary": planted(Call(Named("collections", "OrderedDict"), state={"__class__": 1})),
        "a class put into an object": raw(text("dnnlib.util") + text("EasyDict") + b"\x93)\x81}" + text("__class__") + b"Nsb"),
        "slots of an object": raw(text("dnnlib.util") + text("EasyDict") + b"\x93)\x81N}" + text("__dict__") + b"Ns\x86b"),
        "state twice": raw(text("dnnlib.tflib.network") + text("Network") + b"\x93)\x81}b}b"),
        "EasyDict called": planted(easy),
        "ordered dictionary of pairs": planted(Call(Named("collections", "OrderedDict"), [["a", 1]])),
        "set of lists": planted(Call(Named("builtins", "set"), [[1]])),
        "a tuple as key": planted({(1, 2): 3}),
        "a number as key": planted({1: 2}),
        "negative offset": planted(tensor(offset=-1)),
        "offset behind the end": planted(tensor(offset=1)),
        "negative stride": planted(tensor(stride=(-1,))),
        "negative size": planted(tensor(size=(-4,))),
        "size larger than the storage": planted(tensor(size=(5,))),
        "stride of nothing": planted(tensor(size=(10**9,), stride=(0,))),
        "stride over the end": planted(tensor(size=(2, 2), stride=(3, 1))),
        "sizes whose product overflows": planted(tensor(size=(2**33, 2**33), stride=(0, 0))),
        "more strides than sizes": planted(tensor(stride=(1, 1))),
        "sizes that are no numbers": planted(tensor(size=(4.0,))),
        "a truth as size": planted(tensor(size=(True,))),
        "many dimensions": planted(tensor(size=(1,) * 30, stride=(1,) * 30)),
        "a tensor of a string": planted(Call(TENSOR, "storage", 0, (1,), (1,), False, OrderedDict())),
        "a parameter of a string": planted(Call(Named("torch._utils", "_rebuild_parameter"), "x", True, OrderedDict())),
        "storage larger than the file": planted(tensor(numel=10**11)),
        "storage of 2^63 numbers": planted(tensor(numel=2**63)),
        "storage of negative size": planted(tensor(numel=-4)),
        "storage of two sizes": planted(tensor(count=4, raw=bytes(12))),
        "bytes behind a storage": planted(tensor(tail=b"PK")),
        "double numbers in float's room": planted(tensor(kind="DoubleStorage")),
        "a storage of no known type": planted(tensor(kind="QInt8Storage")),
        "untyped storage": planted(tensor(kind="UntypedStorage")),
        "another magic": planted(tensor(magic=1)),
        "a view of a storage": planted(tensor(view=("1", 0, 2))),
        "keys of another storage": planted(tensor(keys=["2"])),
        "two storages": planted(tensor(keys=["1", "2"])),
        "a module instead of a storage": planted(tensor(pid=("module", Named("torch", "FloatStorage"), "1", "cpu"))),
        "array of objects": planted(Call(dtype, "O8", False, True)),
        "structure": planted(Call(dtype, "V8", False, True, state=(3, "|", None, ("a",), {"a": 1}, 8, 1, 0))),
        "a structure called f8": planted(Call(dtype, "f8", False, True, state=(3, "<", None, ("a",), {"a": 1}, 8, 1, 0))),
        "subarray": planted(Call(dtype, "f8", False, True, state=(3, "<", ("f8", (9,)), None, None, -1, -1, 0))),
        "big-endian": planted(Call(dtype, "f8", False, True, state=(3, ">", None, None, None, -1, -1, 0))),
        "a number of wrong size": planted(Call(scalar, f8, b"1234")),
        "a number of no type": planted(Call(scalar, "f8", bytes(8))),
        "array of wrong size": planted(Call(array.function, *array.arguments, state=(1, (3,), f8, False, bytes(8)))),
        "array of negative size": planted(Call(array.function, *array.arguments, state=(1, (-1,), f8, False, b""))),
        "array of a list": planted(Call(array.function, *array.arguments, state=(1, (1,), f8, False, [1]))),
        "array of another class": planted(Call(array.function, Named("numpy", "dtype"), (0,), b"b")),
        "other encoding": planted(Call(Named("_codecs", "encode"), "x", "utf-7")),
        "encoding of a list": planted(Call(Named("_codecs", "encode"), [], "latin1")),
        "a number of a million digits": raw(b"\x8b" + struct.pack("<I", 10**6) + bytes(10**6)),
        "a number longer than the file": raw(b"\x8b" + struct.pack("<I", 2**31 - 1)),
        "text longer than the file": raw(b"\x8d" + struct.pack("<Q", 2**63)),
        "bytes longer than the file": raw(b"\x8e" + struct.pack("<Q", 2**40)),
        "frame of all memory": raw(b"\x95" + struct.pack("<Q", 2**60) + b"N"),
        "memo of all memory": raw(b"Nr\xff\xff\xff\xff"),
        "memo that is not there": raw(b"h\x07"),
        "nested tuples as key": raw(b"}" + b")" + b"\x85" * 100_000 + b"Ns"),
        "nested lists": raw(b"]" * 200_000 + b"a" * 199_999),
        "nested lists without end": raw(b"]" * 600_000),
        "marks without end": raw(b"(" * 600_000),
        "a list in itself": raw(b"]\x94h\x00a"),
        "billion laughs": raw(b"".join([b"]\x94", *(b"(" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"t\x94" for i in range(20))])),
        "billion laughs of tuples": raw(b")\x94" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(200))),
        "encoded again and again": raw(
            text("_codecs")
            + text("encode")
            + b"\x93\x94"
            + b"X"
            + struct.pack("<I", 10**6)
            + b"a" * 10**6
            + b"\x94"
            + text("latin1")
            + b"\x94"
            + b"0" * 3
            + b"h\x00h\x01h\x02\x86R0" * 10_000
            + b"N"
        ),
        "pop from nothing": raw(b"0"),
        "tuple of nothing": raw(b"\x87"),
        "items without a dictionary": raw(b"NNNs"),
        "items without a mark": raw(b"}u"),
        "a key without a value": raw(b"}(Nu"),
        "append to a tuple": raw(b")Na"),
        "two values at the end": raw(b"NN"),
        "no value at the end": raw(b""),
        "a mark at the end": raw(b"(N"),
        "protocol 0": b"(dp0\n.",
        "protocol 1": b"\x80\x01}.",
        "protocol 99": b"\x80\x63}.",
        "text that is no text": raw(b"\x8c\x02\xff\xfe"),
        "a name without end": raw(b"c" + b"a" * 1000, 2),
        "zip behind the pickle": planted(None) + b"PK\x05\x06" + bytes(18),
        "another pickle behind the pickle": planted(None) + dumps(Call(Named("os", "system"), shell)),
        "truncated": planted(None)[:-1],
        "nothing": b"",
    }


NAMES = list(attacks(Path("unused")))


@pytest.fixture(scope="module")
def harmful(tmp_path_factory) -> tuple[dict[str, bytes], Path]:
    """All attacks, built once, and the file that those that work would plant."""
    canary = tmp_path_factory.mktemp("mine") / "canary"
    return attacks(canary), canary


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_refused_and_nothing_happens(harmful, tmp_path, name):
    files, canary = harmful
    (tmp_path / "x.pkl").write_bytes(files[name])
    before = set(sys.modules)
    with pytest.raises(WeightsError) as error:
        read_official(tmp_path / "x.pkl")
    assert error.value.exit_code == 69
    assert len(error.value.line) < 400
    assert not canary.exists()
    assert not {"torch_utils", "dnnlib"} & (set(sys.modules) - before)


@pytest.mark.parametrize("name", ["os.system", "posix.system", "subprocess", "builtins.eval", "builtins.exec"])
def test_the_attacks_are_real(tmp_path, name):
    """Python's own unpickler plants the file: the canary can sing."""
    content = dumps(Call(*_call_of(name, tmp_path / "canary")))
    pickle.loads(content)
    assert (tmp_path / "canary").exists()
    with pytest.raises(WeightsError):
        read_pickle(content)


def _call_of(name: str, canary: Path) -> tuple:
    module, _, word = name.partition(".")
    if module == "subprocess":
        return Named("subprocess", "check_call"), ["touch", str(canary)]
    return Named(module, word), f"touch {canary}" if word == "system" else f"open({str(canary)!r}, 'w').close()"


def test_bombs_neither_crash_nor_fill_the_memory(harmful, tmp_path):
    """In a process of 400 MB above its start, killed by a stack overflow or by the limit if a bomb went off."""
    bombs = [
        name
        for name in NAMES
        if any(
            word in name for word in ("memory", "nested", "laughs", "again", "longer", "million", "marks", "overflows", "nothing", "itself")
        )
    ]
    assert len(bombs) >= 14
    for i, name in enumerate(bombs):
        (tmp_path / f"{i}.pkl").write_bytes(harmful[0][name])
    program = """
import resource, sys
from pathlib import Path
from medgan.errors import WeightsError
from medgan.networks.nvidia import read_official
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, used + 400 * 2**20))
for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
    try:
        read_official(path)
    except WeightsError as error:
        if "MemoryError" in error.line:
            raise SystemExit(f"{path.name} filled the memory")
    else:
        raise SystemExit(f"{path.name} was read")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=300, env={**os.environ})
    assert done.returncode == 0, done.stderr[-500:] or done.returncode


def test_a_file_larger_than_any_is_not_even_opened(tmp_path):
    with (tmp_path / "x.pkl").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(WeightsError, match="more than any official file"):
        read_official(tmp_path / "x.pkl")


def test_truncated_anywhere_is_refused(tmp_path):
    content = planted(None)
    path = tmp_path / "x.pkl"
    for end in {*range(0, 300, 17), *np.linspace(300, len(content) - 1, 25).astype(int).tolist()}:
        path.write_bytes(content[:end])
        with pytest.raises(WeightsError):
            read_official(path)


def test_the_same_numbers_under_many_names_are_refused(tmp_path):
    """Ten thousand names of one storage would be ten thousand copies of it."""
    value = valid()
    state = value["G"].meta["state"]
    shared = tensor(size=(100_000,), stride=(1,), count=100_000)
    state["_buffers"] = OrderedDict((f"b{i}", shared) for i in range(100))
    (tmp_path / "x.pkl").write_bytes(dumps(value))
    with pytest.raises(WeightsError):
        read_official(tmp_path / "x.pkl")
    _, reader = read_pickle(dumps(value))
    with pytest.raises(WeightsError, match="larger than the file"):
        reader.spend(100 * 400_000)


def test_every_opcode_that_official_files_need_is_read_as_python_reads_it():
    value = {
        "ints": [0, 255, 256, 65535, 65536, -1, 2**31, -(2**40), 2**100],
        "float": 1.5,
        "truths": (True, False, None),
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "texts": ["", "é\ud800", "long " * 100],
        "sets": {"a", "b"},
        "shared": [shared := ["x"], shared],
    }
    for protocol in (2, 3, 4, 5):
        for content in (pickle.dumps(value, protocol), dumps(value, protocol)):
            assert read_pickle(content)[0] == value
    found, _ = read_pickle(dumps([b"", b"bytes", bytes(300)], 3))
    assert [bytes(item) for item in found] == [b"", b"bytes", bytes(300)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    cut=st.sampled_from(["replace", "insert", "delete", "swap"]),
)
def test_a_changed_file_is_refused_or_read_as_whole_networks(tmp_path, changes, cut):
    content = bytearray(VALID)
    for position, new in changes:
        if cut == "replace":
            content[position : position + len(new)] = new
        elif cut == "insert":
            content[position:position] = new
        elif cut == "delete":
            del content[position : position + len(new)]
        else:
            content[position : position + 64], content[:64] = content[:64], content[position : position + 64]
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    try:
        read = read_official(path)
    except WeightsError as error:
        line = error.line
    else:
        line = ""
    assert len(line) < 600
    assert "\n" not in line
    for network, kind in () if line else ((read.G, Generator), (read.D, Discriminator), (read.G_ema, Generator)):
        assert {name: tuple(t.shape) for name, t in network.weights.items()} == expected_shapes(kind, network.arguments)
        assert all(bool(torch.isfinite(t).all()) for t in network.weights.values())


def test_the_unchanged_file_is_read():
    buffer = io.BytesIO(VALID)
    assert set(read_pickle(buffer.getvalue())[0]) == {"training_set_kwargs", "G", "D", "G_ema", "augment_pipe"}
