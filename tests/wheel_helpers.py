"""A wheel with a tiny base model inside, the same bytes each time."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_wheel"]

_WIDTH, _POSITIONS = 8, 32
_CONFIG: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": _WIDTH,
    "n_head": 2,
    "n_layer": 1,
    "n_positions": _POSITIONS,
    "vocab_size": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_METADATA = b"Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n"
_WHEEL = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_CODE = b"raise SystemExit('nothing of a package is executed')"


def _byte_characters() -> list[str]:
    """The 256 characters that stand for bytes in GPT-2's vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(others))]


def _tokenizer() -> bytes:
    model = {"type": "BPE", "vocab": {c: n for n, c in enumerate(_byte_characters())}}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {**level, "use_regex": True},
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {**model, "merges": []},
    }
    return json.dumps(value, ensure_ascii=False).encode()


def _weights() -> bytes:
    """Of eighths of small whole numbers: no random generator's version matters."""
    from safetensors.numpy import save

    w = _WIDTH
    shapes = {
        "transformer.wte.weight": (256, w),
        "transformer.wpe.weight": (_POSITIONS, w),
        "transformer.h.0.ln_1.weight": (w,),
        "transformer.h.0.ln_1.bias": (w,),
        "transformer.h.0.attn.c_attn.weight": (w, 3 * w),
        "transformer.h.0.attn.c_attn.bias": (3 * w,),
        "transformer.h.0.attn.c_proj.weight": (w, w),
        "transformer.h.0.attn.c_proj.bias": (w,),
        "transformer.h.0.ln_2.weight": (w,),
        "transformer.h.0.ln_2.bias": (w,),
        "transformer.h.0.mlp.c_fc.weight": (w, 4 * w),
        "transformer.h.0.mlp.c_fc.bias": (4 * w,),
        "transformer.h.0.mlp.c_proj.weight": (4 * w, w),
        "transformer.h.0.mlp.c_proj.bias": (w,),
        "transformer.ln_f.weight": (w,),
        "transformer.ln_f.bias": (w,),
    }
    tensors = {}
    for place, (name, shape) in enumerate(shapes.items()):
        count = int(np.prod(shape))
        values = (np.arange(count) * 37 + place * 11) % 17 - 8
        tensors[name] = (values / 8).astype(np.float32).reshape(shape)
    return save(tensors, metadata={"format": "pt"})


def write_wheel(folder: Path) -> Path:
    """tiny_base-1.0-py3-none-any.whl in `folder`."""
    path = folder / "tiny_base-1.0-py3-none-any.whl"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    files = {
        "tiny_base/__init__.py": _CODE,
        "tiny_base/model/modeling_tiny.py": _CODE,
        "tiny_base/model/config.json": json.dumps(_CONFIG).encode(),
        "tiny_base/model/model.safetensors": _weights(),
        "tiny_base/model/tokenizer.json": _tokenizer(),
        "tiny_base/model/tokenizer_config.json": json.dumps(settings).encode(),
        "tiny_base-1.0.dist-info/METADATA": _METADATA,
        "tiny_base-1.0.dist-info/WHEEL": _WHEEL,
        "tiny_base-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return path
