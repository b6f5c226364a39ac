#!/usr/bin/env python3
"""Writes tests/data/embeddings.json: what transformers computes for texts with all-MiniLM-L6-v2, in fp32 on the CPU.

    python tests/reference/embeddings.py [--model models/all-MiniLM-L6-v2] [--out tests/data/embeddings.json]

Each text is computed alone, by the model's own recipe: tokens cut at 256, the mean of the last hidden states, normalised.
Needs torch, transformers and numpy. The file holds for each text its token ids and the numbers of its vector.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from snippets import SNIPPETS

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 256

TEXTS = [
    ("word", "inventory"),
    ("sentence", "A cache keeps what was computed, so that it need not be computed again."),
    ("question", "How do I reverse a linked list in C?"),
    ("accents", "Çà et là, l'été à Zürich: naïve façade, 12 € le café."),
    ("cjk", "キャッシュは計算結果を保存する。缓存保存结果。"),
    ("emoji", "deploy 🚀 failed ❌ — rolled back"),
    ("punctuation", "x->y = (a[i] += b) ? c : d; // <= >= != &&"),
    ("spaces", "  tabs\tand\n\n newlines \r\n"),
    ("long", "The quick brown fox jumps over the lazy dog. " * 60),
    ("long word", "a" * 150 + " b"),
]


@torch.no_grad()
def vector(model, ids):
    states = model(torch.tensor([ids])).last_hidden_state[0]
    mean = states.mean(0)
    return (mean / mean.norm()).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/embeddings.json")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager").eval()
    texts = TEXTS + [(name, code) for name, _, code in SNIPPETS[:10]]
    rows = []
    for name, text in texts:
        whole = tokenizer(text)["input_ids"]
        ids = tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"]
        values = [float(f"{v:.7f}") for v in vector(model, ids)]
        rows.append({"name": name, "text": text, "truncated": len(whole) > LONGEST, "ids": ids, "vector": values})
        print(f"{name:14} {len(ids):4} tokens  {np.linalg.norm(values):.6f}")
    data = {"about": "written by tests/reference/embeddings.py", "torch": torch.__version__, "texts": rows}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    args.out.write_text(text.replace('{"name"', '\n{"name"') + "\n")
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
