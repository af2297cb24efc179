"""Sound backbones: against independent computations, cut and put together again, compiled, and refused in words."""

import importlib.util
import re

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from headstart.backbones import bundled, locate, open_backbone
from headstart.backbones.catalog import find_source, of_modality
from headstart.backbones.mel import Spectrogram
from headstart.backbones.mel_tables import cosine_matrix, fourier_kernels, hann, mel_filters
from headstart.backbones.mfcc import MelFront as CoefficientFront
from headstart.backbones.sound_network import PLACES, pool_directions, pool_windows
from headstart.backbones.sounds import PooledSoundPrefix, PooledSounds, SoundTail
from headstart.errors import BackboneError, MissingPackageError
from headstart.features.export import export
from sound_models import save_encoder, sound_of

FAMILIES = ("wav2vec2", "wav2vec2-stable", "hubert", "whisper", "ast")
BUNDLED_SOUNDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            bool(entry.module) and importlib.util.find_spec(entry.module) is None, reason=f"{entry.package} is not installed"
        ),
    )
    for name, entry in bundled.BUNDLED.items()
    if entry.modality == "audio"
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(family)` gives the name, the network and the feature extractor of a tiny encoder."""
    folder, found = tmp_path_factory.mktemp("encoders"), {}

    def save(family):
        if family not in found:
            found[family] = (f"file:{folder / family}", *save_encoder(family, folder / family))
        return found[family]

    return save


def noise(count, length):
    return (0.1 * np.random.default_rng(3).standard_normal((count, length))).astype(np.float32)


def reference_spectrogram(samples, frame, hop, length, window):
    """Powers by numpy's FFT, frame by frame: (T, F)."""
    starts = range(0, len(samples) - frame + 1, hop)
    return np.stack([np.abs(np.fft.rfft(samples[s : s + frame] * window, length)) ** 2 for s in starts])


def test_spectrogram_is_that_of_a_fourier_transform():
    samples = noise(1, 4_000)
    found = Spectrogram(fourier_kernels(hann(400), 512), hop=160)(torch.from_numpy(samples))[0].numpy()
    expected = reference_spectrogram(samples[0].astype(np.float64), 400, 160, 512, hann(400))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("num_mels", "length", "rate"), [(40, 400, 16_000), (64, 512, 16_000), (80, 400, 16_000)])
def test_mel_filters_are_those_of_transformers(num_mels, length, rate):
    expected = transformers.audio_utils.mel_filter_bank(
        length // 2 + 1, num_mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney"
    )
    np.testing.assert_allclose(mel_filters(num_mels, length, rate), expected, atol=1e-9)


def test_coefficients_are_those_of_scipy():
    from scipy.fft import dct

    bands = noise(5, 64)
    np.testing.assert_allclose(bands @ cosine_matrix(64, 20), dct(bands, norm="ortho")[:, :20], atol=1e-6)
    samples = torch.from_numpy(noise(1, 16_000))
    front = CoefficientFront()(samples, torch.ones_like(samples, dtype=torch.bool))[0].numpy()
    power = reference_spectrogram(samples[0].double().numpy(), 512, 160, 512, hann(512)) @ mel_filters(64, 512, 16_000)
    np.testing.assert_allclose(front, np.log(power), atol=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("resemblyzer") is None, reason="resemblyzer is not installed")
def test_speaker_gives_what_resemblyzer_gives():
    """Against the package's own steps, by numpy and one LSTM of three layers with its weights under their own names."""
    backbone, source = open_backbone("speaker"), locate("speaker", modality="audio")
    saved = torch.load(source.weights_path, map_location="cpu", weights_only=True)["model_state"]
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    lstm.load_state_dict({name.removeprefix("lstm."): value for name, value in saved.items() if name.startswith("lstm.")})
    linear.load_state_dict({name.removeprefix("linear."): saved[name] for name in ("linear.weight", "linear.bias")})
    window = noise(2, backbone.preprocess.window)
    centred = [np.pad(each.astype(np.float64), 200) for each in window]
    bands = np.stack([reference_spectrogram(each, 400, 160, 400, hann(400)) @ mel_filters(40, 400, 16_000) for each in centred])
    assert bands.shape == (2, 160, 40)
    with torch.no_grad():
        raw = torch.relu(linear(lstm(torch.from_numpy(bands.astype(np.float32)))[1][0][-1]))
        expected = (raw / raw.norm(dim=1, keepdim=True)).numpy()
        found = backbone.network(torch.from_numpy(window))[0][-1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("openwakeword") is None, reason="openwakeword is not installed")
def test_speech_embedding_gives_what_its_own_graphs_give():
    backbone, source = open_backbone("speech-embedding"), locate("speech-embedding", modality="audio")
    spectrogram, embedding = (
        onnxruntime.InferenceSession(source.weights_path.parent / name, providers=["CPUExecutionProvider"])
        for name in ("melspectrogram.onnx", "embedding_model.onnx")
    )
    window = noise(1, backbone.preprocess.window)
    bands = spectrogram.run(None, {"input": window * 32_767})[0].reshape(-1, 32) / 10 + 2
    pieces = np.stack([bands[start : start + 76] for start in range(0, len(bands) - 75, 8)])[..., None]
    expected = embedding.run(None, {"input_1": pieces})[0].reshape(-1, 96)
    found = backbone.network(torch.from_numpy(window))[0][-1]
    assert found.shape == (1, 96, 16, 1)
    np.testing.assert_allclose(found[0, :, :, 0].T.numpy(), expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_encoders_give_what_transformers_give(family, saved):
    """The feature extractor's own preparation and the network as it is, against windows through the row of blocks."""
    name, network, extractor = saved(family)
    backbone = open_backbone(name)
    window = noise(1, backbone.preprocess.window)
    given = extractor(window[0], sampling_rate=16_000, return_tensors="pt")
    encoder = network.get_encoder() if family == "whisper" else network
    with torch.no_grad():
        expected = encoder(next(iter(given.values()))).last_hidden_state
        found = backbone.network(torch.from_numpy(window))[0]
    assert backbone.info.modality == "audio" and not backbone.why_untraced
    assert backbone.blocks[0] == "embeddings" and len(found) == len(backbone.blocks)
    np.testing.assert_allclose(found[-1].numpy(), expected.numpy(), atol=2e-3 * float(expected.abs().max()))


def test_a_short_sound_is_prepared_as_the_feature_extractor_would(saved):
    name, network, extractor = saved("ast")
    backbone = open_backbone(name)
    short = noise(1, backbone.preprocess.window // 2)[0]
    windows = backbone.preprocess.prepare((short, 16_000))
    expected = extractor(short, sampling_rate=16_000, return_tensors="pt").input_values
    here = torch.from_numpy(windows)
    found = backbone.network.front(here.nan_to_num(), ~here.isnan())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-3)


@pytest.mark.parametrize("name", [*BUNDLED_SOUNDS, *FAMILIES])
def test_tail_behind_prefix_gives_the_whole_at_every_cut(name, saved):
    backbone = open_backbone(saved(name)[0] if name in FAMILIES else name)
    batch = torch.from_numpy(backbone.preprocess.example(3))
    whole = PooledSounds(backbone)
    with torch.no_grad():
        expected = whole(batch)
        assert torch.isfinite(expected).all() and expected.shape[1] == sum(block.width for block in backbone.info.blocks)
        if backbone.why_untraced:
            with pytest.raises(BackboneError, match="cannot be cut"):
                backbone.cut(backbone.blocks[0])
            return
        np.testing.assert_allclose(SoundTail(backbone, None).eval()(batch, batch.new_empty(3, 0)), expected, atol=1e-5)
        for cut in backbone.blocks[:-1]:
            prefix, tail = PooledSoundPrefix(backbone, cut), SoundTail(backbone, cut).eval()
            found = prefix(batch)
            rows, width = batch.shape[1], prefix.pooling.shapes[prefix.kept[-1]][1]
            state, pooled = found[:, : rows * width].reshape(3, rows, width), found[:, rows * width :]
            np.testing.assert_allclose(tail(state, pooled), expected, atol=1e-4)
            before, behind = backbone.cut(cut)
            np.testing.assert_allclose(behind.eval()(before(batch)), backbone(batch), atol=1e-4)


@pytest.mark.parametrize("name", [*BUNDLED_SOUNDS, "wav2vec2", "whisper", "ast"])
def test_compiled_networks_are_faithful(name, saved, tmp_path):
    backbone = open_backbone(saved(name)[0] if name in FAMILIES else name)
    spec = export(backbone, tmp_path / "prefix.onnx")
    assert not spec.why_torch and spec.relative_error <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "prefix.onnx", providers=["CPUExecutionProvider"])
    items = [backbone.preprocess.prepare((sound_of("rising", 1, seconds=seconds), 8_000)) for seconds in (0.5, 4.0)]
    batch = backbone.preprocess.collate(items)
    together = session.run(None, {"windows": batch})[0]
    with torch.no_grad():
        np.testing.assert_allclose(together, PooledSounds(backbone)(torch.from_numpy(batch)), atol=1e-3, rtol=1e-2)
    for row, item in enumerate(items):
        alone = session.run(None, {"windows": item[None]})[0]
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4 * np.abs(together).max(), rtol=1e-3)


def test_pooling_leaves_out_what_is_not_there():
    output = torch.arange(24.0).reshape(2, 4, 3)
    places = torch.ones(2, PLACES, dtype=torch.bool)
    places[1, PLACES // 2 :] = False
    mean, deviation = pool_windows(output, places, 1)[0].split(3)
    kept = torch.cat([output[0], output[1, :2]])
    np.testing.assert_allclose(mean, kept.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, kept.std(0, unbiased=False), rtol=1e-5)
    nothing = pool_windows(output, torch.zeros_like(places), 2)
    assert torch.isfinite(nothing).all() and float(nothing.abs().max()) < 1e-4


def test_the_default_is_all_that_is_installed(monkeypatch):
    found = importlib.util.find_spec
    gone = {"resemblyzer"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in gone else found(name, *more))
    assert bundled.default_for("audio") in {"speech-embedding+mfcc", "mfcc"}
    gone.add("openwakeword")
    assert bundled.default_for("audio") == "mfcc" and locate("auto", modality="audio").name == "mfcc"
    with pytest.raises(MissingPackageError, match="resemblyzer") as caught:
        locate("speaker", modality="audio")
    assert caught.value.mend == "pip install --no-deps resemblyzer==0.1.4"


def test_names_say_what_they_take(saved, tmp_path):
    assert locate(saved("hubert")[0], modality="audio").modality == "audio"
    with pytest.raises(BackboneError, match="takes audio items, and these are text items"):
        locate(saved("hubert")[0], modality="text")
    named = of_modality(find_source("hf:facebook/wav2vec2-base"), "audio")
    assert (named.modality, named.library) == ("audio", "transformers")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(BackboneError, match=re.escape("takes text items, and these are audio items")) as caught:
        locate(f"file:{tmp_path / 'bert'}", modality="audio")
    assert "speaker, speech-embedding, mfcc, hf:…" in caught.value.expected


def test_an_untrained_twin_has_other_weights(saved):
    name, *_ = saved("wav2vec2")
    trained, twin = open_backbone(name), open_backbone(f"random:{name}")
    assert twin.blocks == trained.blocks and "untrained" in twin.info.source
    assert not torch.equal(*(next(each.network.blocks[1].parameters()) for each in (trained, twin)))


def test_the_voice_of_a_whole_sound_is_the_mean_of_its_windows_at_length_1():
    """As `embed_utterance` of resemblyzer has it: the mean of the partial embeddings, divided by its length."""
    vectors = torch.nn.functional.normalize(torch.rand(3, 2, 5), dim=2)
    places = torch.ones(6, PLACES, dtype=torch.bool)
    places[1] = False
    places[4:] = False
    found = pool_directions(vectors.flatten(0, 1), places, 3).numpy()
    mean = vectors[1].numpy().mean(0)
    np.testing.assert_allclose(found[0], vectors[0, 0], atol=1e-6)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)
    assert not found[2].any(), "no sound, no voice"


@pytest.mark.skipif(importlib.util.find_spec("resemblyzer") is None, reason="resemblyzer is not installed")
def test_speaker_ends_with_a_vector_of_length_1_and_its_other_blocks_with_two_kinds_of_numbers():
    backbone = open_backbone("speaker", modality="audio")
    assert [block.width for block in backbone.info.blocks] == [512, 512, 512, 256]
    assert PooledSounds(backbone).pooling.kinds == (2, 2, 2, 1)
    with torch.no_grad():
        lengths = backbone(torch.from_numpy(backbone.preprocess.example(3))).norm(dim=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


def test_open_backbone_can_be_told_what_items_are():
    assert open_backbone("mfcc", modality="audio").info.modality == "audio"
    with pytest.raises(BackboneError, match="takes audio items, and these are text items"):
        open_backbone("mfcc", modality="text")
