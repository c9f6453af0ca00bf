"""Files of the official structure, made here: the pickler writes the official names, no official package is needed.

STYLEGAN2-ADA.md 9.1 (PyTorch: one reduce of `_reconstruct_persistent_obj` per module) and 9.3 (TensorFlow: NEWOBJ and BUILD). The source
text in them is inert.
"""

from __future__ import annotations

import io
import pickle
import types
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np
from torch import nn

SOURCE = "# the source of a network stood here\nraise SystemExit('this text must never run')\n"
G_ARGUMENTS = {
    "z_dim": 16,
    "w_dim": 16,
    "img_resolution": 32,
    "img_channels": 3,
    "channel_base": 256,
    "channel_max": 16,
    "mapping_layers": 3,
}
D_ARGUMENTS = {"img_resolution": 32, "img_channels": 3, "channel_base": 256, "channel_max": 16}


class EasyDict(dict):
    """Stands for dnnlib.util.EasyDict."""


class OldEasyDict(dict):
    """The same as Python before 3.11 wrote it: with an empty state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Network:
    """Stands for dnnlib.tflib.network.Network."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def reconstruct(meta: Any) -> None:
    """Stands for torch_utils.persistence._reconstruct_persistent_obj."""


class Persistent:
    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> tuple[Any, ...]:
        return reconstruct, (self.meta,)


class Named:
    """A global of any name, for attack files."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """A reduce of anything."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state


STAND_INS = {
    EasyDict: ("dnnlib.util", "EasyDict"),
    OldEasyDict: ("dnnlib.util", "EasyDict"),
    Network: ("dnnlib.tflib.network", "Network"),
    reconstruct: ("torch_utils.persistence", "_reconstruct_persistent_obj"),
}


class Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Python's own pickler with our choice of names.

    Args:
        old_numpy: numpy 1's module names.
    """

    def __init__(self, file: io.BytesIO, protocol: int, *, old_numpy: bool = False) -> None:
        super().__init__(file, protocol)
        self.old_numpy = old_numpy

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module, word = STAND_INS.get(obj) or (obj.__module__, name or obj.__qualname__)
        if self.old_numpy:
            module = module.replace("numpy._core", "numpy.core")
        if self.proto == 2 and (module, word) == ("builtins", "set"):
            module = "__builtin__"
        self.write_name(module, word)
        self.memoize(obj)

    def write_name(self, module: str, word: str) -> None:
        if self.proto >= 4:
            self.save(module)
            self.save(word)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{word}\n".encode())

    def save_named(self, obj: Named) -> None:
        self.write_name(obj.module, obj.name)

    def save_call(self, obj: Call) -> None:
        self.save(obj.function)
        self.save(tuple(obj.arguments))
        self.write(pickle.REDUCE)
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    dispatch: ClassVar = {
        **pickle._Pickler.dispatch,  # type: ignore[attr-defined]
        types.FunctionType: save_global,
        type: save_global,
        Named: save_named,
        Call: save_call,
    }


def dumps(value: Any, protocol: int = 4, *, old_numpy: bool = False, memo: bool = True) -> bytes:
    buffer = io.BytesIO()
    pickler = Pickler(buffer, protocol, old_numpy=old_numpy)
    pickler.fast = not memo
    pickler.dump(value)
    return buffer.getvalue()


def persistent(module: nn.Module, *, init_kwargs: dict[str, Any] | None = None, easy: type = EasyDict) -> Persistent:
    """A module and all below it as the official code pickles them."""
    state = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_non_persistent_buffers_set": {"nothing"},
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict((name, persistent(child, easy=easy)) for name, child in module._modules.items()),
        "weight_gain": np.float64(0.25),
        "img_resolution": 32,
        "_init_args": (),
        "_init_kwargs": easy(init_kwargs or {}),
    }
    meta = easy(type="class", version=6, module_src=SOURCE, class_name=type(module).__name__, state=state)
    return Persistent(meta)


def keywords(G: dict[str, Any], D: dict[str, Any], *, ada: bool, easy: type = EasyDict) -> tuple[dict[str, Any], dict[str, Any]]:
    """The constructor keywords as either repository records them."""
    shape = {name: G[name] for name in ("channel_base", "channel_max")}
    common = {name: G.get(name, 0) for name in ("c_dim", "img_resolution", "img_channels")}
    synthesis = {**shape, "num_fp16_res": 0, "conv_clamp": None}
    generator = {"z_dim": G["z_dim"], "w_dim": G["w_dim"], "mapping_kwargs": easy(num_layers=G["mapping_layers"]), **common}
    generator |= {"synthesis_kwargs": easy(synthesis)} if ada else synthesis | {"fused_modconv_default": "inference_only"}
    discriminator = {
        "block_kwargs": easy(freeze_layers=0),
        "mapping_kwargs": easy(),
        "epilogue_kwargs": easy(mbstd_group_size=4),
        **shape,
        "num_fp16_res": 0,
        "conv_clamp": None,
        **common,
    }
    return generator, discriminator


def snapshot(
    G: nn.Module, D: nn.Module, G_ema: nn.Module, kwargs: tuple[dict[str, Any], dict[str, Any]], easy: type = EasyDict
) -> dict[str, Any]:
    return {
        "training_set_kwargs": easy(class_name="training.dataset.ImageFolderDataset", path="/somewhere/ffhq.zip", resolution=32),
        "G": persistent(G, init_kwargs=kwargs[0], easy=easy),
        "D": persistent(D, init_kwargs=kwargs[1], easy=easy),
        "G_ema": persistent(G_ema, init_kwargs=kwargs[0], easy=easy),
        "augment_pipe": None,
    }


def tf_network(name: str, settings: dict[str, Any], variables: list[tuple[str, Any]], components: dict[str, Any] | None = None) -> Network:
    return Network(
        version=4,
        name=name,
        static_kwargs=EasyDict(settings),
        components=EasyDict(components or {}),
        build_module_src=SOURCE,
        build_func_name="build",
        variables=variables,
        input_shapes=[[None, 16]],
    )
