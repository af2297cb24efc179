"""Sounds that are told apart by ear, and tiny sound encoders with random weights, saved by transformers."""

import numpy as np
import torch
import transformers

RATE = 8_000
KINDS = ("rising", "falling", "hiss", "clicks")


def sound_of(kind, number, *, seconds=1.2, rate_hz=RATE):
    """Samples (T,) float32 of one kind; other for every number."""
    random = np.random.default_rng([KINDS.index(kind), number])
    seconds *= random.uniform(0.7, 1.4)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    low, high = random.uniform(200, 400), random.uniform(900, 1_500)
    match kind:
        case "rising":
            level = np.sin(2 * np.pi * (low * time + (high - low) * time**2 / (2 * seconds)))
        case "falling":
            level = np.sin(2 * np.pi * (high * time - (high - low) * time**2 / (2 * seconds)))
        case "hiss":
            level = 0.4 * random.standard_normal(len(time))
        case "clicks":
            level = (np.sin(2 * np.pi * random.uniform(4, 9) * time) > 0.98) * random.standard_normal(len(time))
    return (random.uniform(0.1, 0.5) * level + 0.003 * random.standard_normal(len(time))).astype(np.float32)


def write_sounds(folder, *, per_class, first=0, kinds=KINDS, suffix="wav"):
    """Write a folder of sounds for each kind."""
    import soundfile

    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        for number in range(first, first + per_class):
            soundfile.write(folder / kind / f"{number}.{suffix}", sound_of(kind, number), RATE)
    return folder


_SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
_CONVOLUTIONS = {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (80, 16, 4),
    "conv_stride": (40, 8, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}


def save_encoder(family, folder):
    """Save a tiny encoder with its feature extractor; gives the encoder and the extractor."""
    samples = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, sampling_rate=16_000)
    match family:
        case "wav2vec2":
            made = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**_SIZE, **_CONVOLUTIONS)), samples
        case "wav2vec2-stable":
            more = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
            made = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**_SIZE, **_CONVOLUTIONS, **more)), samples
        case "hubert":
            made = transformers.HubertModel(transformers.HubertConfig(**_SIZE, **_CONVOLUTIONS)), samples
        case "whisper":
            sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
            sizes |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 20}
            tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
            config = transformers.WhisperConfig(**sizes, **tokens, num_mel_bins=20, max_source_positions=50)
            made = transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
        case "ast":
            config = transformers.ASTConfig(**_SIZE, num_mel_bins=32, max_length=64, patch_size=8)
            extractor = transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
            made = transformers.ASTModel(config), extractor
        case _:
            raise ValueError(family)
    network, extractor = made
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    network.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return network, extractor
