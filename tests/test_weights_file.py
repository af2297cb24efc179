"""Weights files are read without torch: the same tensors, and nothing in a file can run."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headstart.backbones import BUNDLED
from headstart.backbones.catalog import find_source
from headstart.backbones.weights_file import read_tensors

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])


def a_state():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    return network.state_dict() | {
        "transposed": torch.randn(5, 6).t(),
        "view": torch.arange(20)[3:9],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "flags": torch.tensor([True, False]),
    }


def assert_same(state, path):
    found = read_tensors(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.detach().numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


@FORMATS
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
def test_both_formats_of_torch_save_give_torchs_tensors(tmp_path, zipped, wrapper):
    state, path = a_state(), tmp_path / "weights.pth"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path, _use_new_zipfile_serialization=zipped)
    assert_same(state, path)


def test_safetensors(tmp_path):
    state = {name: tensor.detach().contiguous() for name, tensor in sorted(a_state().items())}
    save_file(state, tmp_path / "weights.safetensors")
    found = read_tensors(tmp_path / "weights.safetensors")
    assert set(found) == set(state)
    assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in state.items())


@pytest.mark.parametrize("name", [name for name, entry in BUNDLED.items() if entry.weights.endswith((".pth", ".pt"))])
def test_the_bundled_files(name):
    path = find_source(name).weights_path
    expected = torch.load(path, map_location="cpu", weights_only=True)
    assert_same(expected.get("model_state", expected), path)


@FORMATS
def test_a_whole_network_is_refused(tmp_path, zipped):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"torch\.nn"):
        read_tensors(tmp_path / "network.pth")


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_runs(tmp_path, protocol):
    harmful = pickle.dumps({"weight": Touch(tmp_path / "made")}, protocol=protocol)
    with zipfile.ZipFile(tmp_path / "zipped.pth", "w") as archive:
        archive.writestr("archive/data.pkl", harmful)
    (tmp_path / "plain.pth").write_bytes(harmful)
    for name in ("zipped.pth", "plain.pth"):
        with pytest.raises(ValueError):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "made").exists()


@FORMATS
def test_damage_ends_in_a_value_or_a_value_error(tmp_path, zipped):
    path = tmp_path / "weights.pth"
    torch.save(a_state(), path, _use_new_zipfile_serialization=zipped)
    content, random = path.read_bytes(), np.random.default_rng(0)
    for case in range(400):
        damaged = bytearray(content)
        for place in random.integers(0, len(damaged), 1 + case % 4):
            damaged[place] = random.integers(256)
        if case % 5 == 0:
            damaged = damaged[: random.integers(len(damaged))]
        path.write_bytes(damaged)
        try:
            found = read_tensors(path)
        except ValueError:
            continue
        assert all(isinstance(tensor, np.ndarray) for tensor in found.values())


def test_an_escape_sequence_in_a_name_is_no_warning(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(7)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b"_utils", b"FloatStorage"):
        path.write_bytes(content.replace(name, b"\\?" + name[2:]))
        with pytest.raises(ValueError, match="refers to"):
            read_tensors(path)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(7)}, path, _use_new_zipfile_serialization=False)
    # The shape (7,) is written as BININT1 7 TUPLE1; 200 elements are more than there are.
    content = path.read_bytes()
    assert content.count(b"K\x07\x85") == 1
    path.write_bytes(content.replace(b"K\x07\x85", b"K\xc8\x85"))
    with pytest.raises(ValueError, match="storage"):
        read_tensors(path)


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(ValueError, match="compressed"):
        read_tensors(tmp_path / "bomb.pth")
