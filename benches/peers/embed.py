"""Texts that transformers embeds a second, by batch: the other side of `cargo bench --bench embed`.

    python benches/peers/embed.py MODEL TOKENS SECONDS BATCH...

Prints one JSON object. The model's own recipe in fp32: last hidden states, their mean, normalised.
"""

import json
import sys
import time

import torch
from transformers import AutoModel


@torch.inference_mode()
def main():
    path, tokens, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    rates = {}
    for batch in map(int, sys.argv[4:]):
        ids = torch.full((batch, tokens), 2000)
        mask = torch.ones_like(ids)
        count = 0
        for warm in (True, False):
            start = time.perf_counter()
            while True:
                states = model(input_ids=ids, attention_mask=mask).last_hidden_state
                mean = (states * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
                torch.nn.functional.normalize(mean)
                count += batch
                if warm or time.perf_counter() - start >= seconds:
                    break
            if warm:
                count = 0
        rates[str(batch)] = count / (time.perf_counter() - start)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
