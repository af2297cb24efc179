"""Damaged files read one after the other in one process: each must give a value or an error in words.

Run as a program: `fuzz_cases.py '{"KIND": COUNT, …}' SEED FIRST FOLDER`. The number of each case is printed before it begins,
so that whoever started the program knows where it ended. What is neither a value nor an expected error is printed as one
line of JSON.
"""

import faulthandler
import hashlib
import io
import json
import resource
import signal
import sys
import tarfile
import traceback
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

MOST_SECONDS = 20
MOST_BYTES = 1_500_000_000
PICTURES = {"jpeg": {"progressive": True}, "png": {}, "gif": {}, "webp": {}, "bmp": {}, "tiff": {"compression": "tiff_lzw"}}
SOUNDS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
CLIPS = {"mp4": "mpeg4", "matroska": "mpeg4"}
TABLES = ("csv", "tsv", "jsonl", "parquet")
ARCHIVES = ("zip", "tar")
MODELS = ("tokenizer.json", "headstart.json", "selftest.safetensors", "model.onnx")
KINDS = (*PICTURES, *SOUNDS, *CLIPS, "txt", *TABLES, *ARCHIVES, *MODELS, "pth")
ROWS = [{"text": f"line {number} of a table, “quoted”", "label": "ab"[number % 2]} for number in range(24)]


def picture(seed=0, side=40):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 255, (side // 8, side // 8, 3), np.uint8)).resize((side, side))


def as_bytes(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def sound(kind):
    import soundfile

    samples, stream = np.sin(np.arange(8000) / 9) * 0.4, io.BytesIO()
    soundfile.write(stream, samples, 8000, format=kind.upper(), subtype=SOUNDS[kind])
    return stream.getvalue()


def clip(kind):
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=kind) as container:
        container.metadata["title"] = "a clip of noise"
        video = container.add_stream(CLIPS[kind], rate=8)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for number in range(8):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(picture(number, 32)), format="rgb24")))
        container.mux(video.encode())
    return stream.getvalue()


def table(kind):
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), stream)
        return stream.getvalue()
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    cells = [list(ROWS[0]), *(['"' + row["text"] + '"', row["label"]] for row in ROWS)]
    return "".join({"csv": ",", "tsv": "\t"}[kind].join(row) + "\n" for row in cells).encode()


def archive(kind):
    stream, members = (
        io.BytesIO(),
        {f"{'ab'[number % 2]}/{number}.png": as_bytes(picture(number, 8), "png") for number in range(6)},
    )
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w") as packed:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[UNK]", "[CLS]", "[SEP]", "line", "of", "a", "table", "##s", "1", "2"]
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.Replace("x", "y")])
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()])
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return made.to_str().encode()


def network():
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["scores"], transB=1),
        helper.make_node("Softmax", ["scores"], ["answer"]),
    ]
    weights = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 9, "bias": np.zeros(2, np.float32)}
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 16, 16])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 2])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "network", [given], [answer], initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def write_artifact(folder, content=None):
    """A small whole model; `content` is what its network should be."""
    from headstart.artifact.store import make_self_test, write
    from headstart.inference import open_session
    from headstart.model.manifest import Manifest
    from headstart.preprocess.image import ImagePreprocess

    recipe, whole = ImagePreprocess(image_size=16, geometry="squash"), network()
    session = open_session(whole, num_threads=1)
    golden = make_self_test(recipe, [picture(1), picture(2)], lambda batch, _: session.run(None, {"pixels": batch})[0])
    plain = dict.fromkeys(("headstart_version", "created", "strategy", "cut", "block"), "")
    manifest = Manifest(
        format=1,
        task="single",
        modality="image",
        labels=("a", "b"),
        thresholds=(0.5, 0.5),
        preprocess=recipe.as_json(),
        backbone={"name": "none"},
        views=("",),
        settings={},
        packages={},
        files={},
        **plain,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, manifest, {"model.onnx": content or whole, "selftest.safetensors": golden, "report.json": b'{"summary": {}}'})


def reseal(folder, name, content):
    """Replace a file of a model with its checksum; of headstart.json, its own."""
    from headstart.model.manifest import Manifest

    path = folder / "headstart.json"
    if name != path.name:
        (folder / name).write_bytes(content)
        told = Manifest.from_text(path.read_text(), where="")
        told.files[name] = hashlib.sha256(content).hexdigest()
        path.write_text(told.as_text())
        return
    try:
        values = json.loads(content)
        values["checksum"] = Manifest.from_text.__globals__["_checksum"]({k: v for k, v in values.items() if k != "checksum"})
        path.write_text(json.dumps(values))
    except (ValueError, TypeError, RecursionError):
        path.write_bytes(content)


def weights():
    import torch

    stream = io.BytesIO()
    torch.save({"a": torch.ones(4, 5), "b": torch.zeros(3), "c": torch.ones(2).half()}, stream)
    return stream.getvalue()


def whole_file(kind, folder):
    """The bytes that are damaged."""
    if kind in PICTURES:
        return as_bytes(picture(), kind, **PICTURES[kind])
    for kinds, make in ((SOUNDS, sound), (CLIPS, clip), (TABLES, table), (ARCHIVES, archive)):
        if kind in kinds:
            return make(kind)
    if kind in MODELS[1:]:
        write_artifact(folder / "model")
        return (folder / "model" / kind).read_bytes()
    made = {"txt": lambda: ("Ein Satz, höchstens zwei.\n" * 9).encode(), "tokenizer.json": tokenizer, "pth": weights}
    return made[kind]()


def damaged(content, random):
    """One seeded change: some bytes, a run of bytes, a cut, or a splice."""
    changed = bytearray(content)
    places = random.integers(0, len(changed), 4)
    match int(random.integers(5)):
        case 0:
            for place in places[: 1 + int(random.integers(4))]:
                changed[place] ^= 1 << int(random.integers(8))
        case 1:
            for place in places[: 1 + int(random.integers(4))]:
                changed[place] = int(random.integers(256))
        case 2:
            del changed[places[0] :]
        case 3:
            start, length = int(places[0]), int(random.integers(1, 40))
            changed[start : start + length] = bytes(random.choice([0, 255, 9]) for _ in range(min(length, 8)))
        case _:
            start, length = int(places[0]), int(random.integers(1, 200))
            changed[places[1] : places[1]] = changed[start : start + length]
    return bytes(changed)


ODD = (float("inf"), -float("inf"), float("nan"), 10**400, -1, 0, 8.5, 2**63, None, True, "", "x", [], {}, [[]], {"a": 1})


def odd_json(content, random):
    """The same JSON with one value, somewhere in it, replaced by an odd one."""
    values = json.loads(content)
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(values)
    held, key = places[int(random.integers(len(places)))]
    held[key] = ODD[int(random.integers(len(ODD)))]
    return json.dumps(values).encode()


def change(kind, content, random):
    """Damage bytes, or for JSON in one half of the cases a value."""
    return (odd_json if kind.endswith(".json") and random.integers(2) else damaged)(content, random)


def from_model(folder, kind):
    """Put a file into a model with its checksum, open that and use it."""
    from headstart.artifact.store import load

    def read_model(content):
        write_artifact(folder / "model")
        reseal(folder / "model", kind, content)
        return load(folder / "model").predict(picture(3))

    return read_model


def from_tokenizer(content):
    """Open a recipe with a tokenizer, and prepare and check texts."""
    from headstart.preprocess.text import TextPreprocess

    told = {"kind": "text", "rules": 1, "max_tokens": 16, "fitting": "head", "max_windows": 2}
    told["tokenizer_sha256"] = hashlib.sha256(content).hexdigest()
    recipe = TextPreprocess.from_json(told, lambda _: content)
    return recipe.prepare("line 1 of a table"), recipe.notice({"a": "line 1 of x tables"})


def from_path(path, read_path):
    """Write the file, and read it by its path."""

    def read_file(content):
        path.write_bytes(content)
        return read_path(path)

    return read_file


def item_readers():
    """For each kind of item, what reads its bytes."""
    from headstart.preprocess.audio import AudioPreprocess
    from headstart.preprocess.clips import ClipPreprocess
    from headstart.preprocess.image import ImagePreprocess
    from headstart.preprocess.text import TextPreprocess

    pixels = ImagePreprocess(image_size=32)
    sounds, texts = AudioPreprocess(rate_hz=8000, window=4000), TextPreprocess(tokenizer=tokenizer().decode(), max_tokens=16)
    readers = dict.fromkeys(PICTURES, pixels.prepare) | dict.fromkeys(SOUNDS, sounds.prepare)
    return readers | dict.fromkeys(CLIPS, ClipPreprocess(picture=pixels).prepare) | {"txt": texts.prepare}


def reader(kind, folder):
    """A function that reads one damaged file as a user's command would."""
    from headstart.backbones.weights_file import read_tensors
    from headstart.data.source import read

    path = folder / f"file.{kind}"
    if kind in TABLES:
        return from_path(path, lambda place: read(place, modality="text"))
    if kind in ARCHIVES:
        return from_path(path, lambda place: read(place, unpack_root=folder / hashlib.sha256(place.read_bytes()).hexdigest()))
    if kind == "pth":
        return from_path(path, read_tensors)
    if kind == "tokenizer.json":
        return from_tokenizer
    return from_model(folder, kind) if kind in MODELS else item_readers()[kind]


def run(kind, seed, first, count, folder):
    """Read the cases of one kind, and print what should not be."""
    from headstart.errors import HeadstartError

    expected = (HeadstartError, ValueError) if kind == "pth" else HeadstartError
    content, read = whole_file(kind, folder), reader(kind, folder)
    read(content)  # the whole file is read, so that what is tested is the damage
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    for number in range(first, first + count):
        print("case", kind, number, flush=True)
        signal.alarm(MOST_SECONDS)
        try:
            read(change(kind, content, np.random.default_rng([seed, KINDS.index(kind), number])))
        except expected:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported
            told = traceback.format_exception(error)
            found = {"kind": kind, "case": number, "error": f"{type(error).__name__}: {error}"[:300], "trace": told[-4:]}
            print(json.dumps(found), flush=True)
    signal.alarm(0)
    print("done", flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    for each_kind, cases in json.loads(sys.argv[1]).items():
        run(each_kind, int(sys.argv[2]), int(sys.argv[3]), cases, Path(sys.argv[4]))
