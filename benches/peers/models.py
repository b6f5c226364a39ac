"""The same model in each engine's own format, all from the one file that our server serves.

- fp32, bf16: the file's weights dequantized by transformers, as a Hugging Face directory.
- llama.cpp Q8_0 and Q4_0: by its llama-quantize with --allow-requantize, from the file itself.
- OpenVINO int8: exported from the fp32 directory by optimum-intel, weights in int8 per channel (its default).
"""

import hashlib
import shutil

from install import LLAMA_BIN, PYTHON, ROOT, PeerError, run, say

PLACE = ROOT / "target" / "bench" / "models"
_DEQUANTIZE = """
import sys, pathlib, torch, transformers
source, out, dtype = pathlib.Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
model = transformers.AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
model.to(dtype).save_pretrained(out)
transformers.AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(out)
"""


class Models:
    """Paths of the model's forms, each made when it is first asked for."""

    def __init__(self, gguf, threads):
        self.gguf, self.threads = gguf, threads
        digest = hashlib.sha256(gguf.read_bytes()).hexdigest()[:16]
        self.place = PLACE / digest

    def fp32(self):
        return self._dequantized("fp32", "float32")

    def bf16(self):
        return self._dequantized("bf16", "bfloat16")

    def llama(self, kind):
        return self._make(kind + ".gguf", lambda out: run(
            [LLAMA_BIN / "llama-quantize", "--allow-requantize", self.gguf, out, kind, self.threads],
            "llama-quantize " + kind))

    def openvino(self):
        fp32 = self.fp32()
        return self._make("openvino-int8", lambda out: run(
            [PYTHON.with_name("optimum-cli"), "export", "openvino", "--model", fp32, "--task", "text-generation-with-past",
             "--weight-format", "int8", out], "exporting the model to OpenVINO"))

    def _dequantized(self, name, dtype):
        return self._make(name, lambda out: run([PYTHON, "-c", _DEQUANTIZE, self.gguf, out, dtype],
                                                "dequantizing the model"))

    def _make(self, name, make):
        path, new = self.place / name, self.place / ("new-" + name)
        if not path.exists():
            say("making %s of the model" % name)
            self.place.mkdir(parents=True, exist_ok=True)
            if new.is_dir():
                shutil.rmtree(new)
            make(new)
            if not new.exists():
                raise PeerError("%s was not made" % path)
            new.rename(path)
        return path
