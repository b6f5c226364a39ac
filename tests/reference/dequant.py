"""Writes tests/data/dequant.json: blocks of every tensor type and the floats that gguf-py makes of them.

Needs the packages gguf and numpy. The K-quantized types have no quantizer there, so all blocks are random bytes, with
scales that are finite. Floats are written as the hex of their bits, so that a comparison is exact.
"""

import json
import pathlib

import gguf
import numpy as np

# Type name, offsets of the halves in a block that scale it.
TYPES = [
    ("F32", []),
    ("F16", []),
    ("BF16", []),
    ("Q8_0", [0]),
    ("Q4_0", [0]),
    ("Q4_1", [0, 2]),
    ("Q5_0", [0]),
    ("Q5_1", [0, 2]),
    ("Q4_K", [0, 2]),
    ("Q5_K", [0, 2]),
    ("Q6_K", [208]),
]


def half_scale(rng: np.random.Generator) -> bytes:
    """A finite half of any sign and size, sometimes zero or subnormal."""
    while True:
        half = rng.integers(0, 1 << 16, dtype=np.uint16)
        if np.isfinite(half.view(np.float16)):
            return half.tobytes()


def plain(name: str, rng: np.random.Generator) -> bytes:
    """Random bit patterns without NaN, whose payload is nobody's business, and the corners."""
    if name == "F32":
        values = rng.integers(0, 1 << 32, 64, dtype=np.uint32).view(np.float32)
        corners = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, 3.4e38], np.float32)
    elif name == "F16":
        values = rng.integers(0, 1 << 16, 200, dtype=np.uint16).view(np.float16)
        corners = np.array([0.0, -0.0, np.inf, -np.inf, 6e-8, 65504], np.float16)
    else:
        bits = rng.integers(0, 1 << 16, 200, dtype=np.uint16)
        bits = np.concatenate([bits, np.array([0, 0x8000, 0x7F80, 0xFF80, 1], np.uint16)])
        as_float = (bits.astype(np.uint32) << 16).view(np.float32)
        return bits[~np.isnan(as_float)].tobytes()
    values = np.concatenate([values, corners])
    return values[~np.isnan(values)].tobytes()


def main() -> None:
    rng = np.random.default_rng(20250729)
    cases = []
    for name, scales in TYPES:
        qtype = gguf.GGMLQuantizationType[name]
        block_len, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
        if block_len == 1:
            data = plain(name, rng)
        else:
            data = b""
            for _ in range(6 if block_len == 32 else 3):
                block = bytearray(rng.bytes(block_bytes))
                for offset in scales:
                    block[offset : offset + 2] = half_scale(rng)
                data += bytes(block)
        raw = np.frombuffer(data, np.uint8)
        if name == "F32":
            raw = raw.view(np.float32)
        elif name == "F16":
            raw = raw.view(np.float16)
        floats = gguf.quants.dequantize(raw, qtype).astype(np.float32).ravel()
        assert not np.isnan(floats).any()
        cases.append(
            {"type": name, "data": data.hex(), "floats": floats.astype(">f4").tobytes().hex()}
        )
    path = pathlib.Path(__file__).parent.parent / "data" / "dequant.json"
    path.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
