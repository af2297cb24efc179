"""The README and its guides do what they say: their commands and their Python run as they stand, on a folder named photos/."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow.parquet
import pytest

import headstart
from language_models import save_language_model, sentences

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("data", "images", "texts", "strategies", "evidence", "backbones")))
LANGUAGE = re.match(r".*?^```.*?^```", (ROOT / "docs" / "language.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
README = "\n".join([*((ROOT / page).read_text(encoding="utf-8") for page in PAGES), LANGUAGE.group()])
BLOCKS = [(language, text.strip()) for language, text in re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)]
PROGRAM = Path(sys.executable).with_name("headstart")

# What `headstart ...` of the README leaves behind or prints, by its first words.
EXPECTED = {
    "check": lambda printed, place: "nothing found" in printed,
    "fit photos/": lambda printed, place: (place / "photos.hs" / "report.html").is_file() and "95" in printed,
    "fit verses.jsonl": lambda printed, place: printed.startswith("Perplexity ") and "unadapted" in printed,
    "generate": lambda printed, place: printed.startswith("You enter a cave") and len(printed) > len("You enter a cave\n"),
    "fit reviews.csv": lambda printed, place: "test texts labelled right" in printed,
    "predict photos.hs": lambda printed, place: (
        [line.split()[1] for line in printed.splitlines()] == ["label", "food", "animals", "food"][: printed.count("\n")]
    ),
    "predict reviews.hs": lambda printed, place: (
        [line.split()[-2] for line in printed.splitlines()] == ["label", "positive", "negative"]
    ),
    "evaluate": lambda printed, place: printed.startswith("8 items") and "accuracy" in printed,
    "embed": lambda printed, place: pyarrow.parquet.read_table(place / "f.parquet").num_rows == 48,
    "export": lambda out, place: "takes pixels" in out and (place / "photos.onnx").is_file(),
}


def kind_of(language, text):
    """What a block is: commands of headstart, Python, targets of make, what was printed, or a picture of a folder."""
    lines = text.splitlines()
    if language == "text":
        return "printed"
    if language == "python":
        return "python"
    if all(line.startswith("headstart ") for line in lines):
        return "headstart"
    if all(line.startswith(("git clone ", "pip install ")) for line in lines):
        return "install"
    if all(line.startswith("make ") for line in lines):
        return "make"
    return "folder" if lines[0].endswith("/") and not language else "unknown"


def reviews():
    """Rows of a table: praise and complaint by turns, no two alike."""
    words = {"positive": "moving funny beautiful lovely", "negative": "dull boring awful endless"}
    things = "film story play comedy thriller drama sequel".split()
    return [
        f"a {words[label].split()[number]} {thing} that {told},{label}"
        for thing in things for number in range(4) for told in ("I saw today", "everybody talks of") for label in words
    ]  # fmt: skip


def run(command, place):
    """Run words of the README where the folder is; headstart is the one of this environment."""
    environment = os.environ | {"PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)


def expected_of(words):
    """The words of a command that tell what is expected of it."""
    return words[1] if words[1] in EXPECTED else " ".join(words[1:3])


@pytest.fixture(scope="module")
def place(draw, tmp_path_factory):
    """A folder with photos/, new pictures and labelled ones, as the README tells of them."""
    folder = tmp_path_factory.mktemp("readme")
    for label, pattern in (("animals", "rings"), ("food", "stripes")):
        for below, numbers in (("photos", range(24)), ("labelled", range(40, 44))):
            (folder / below / label).mkdir(parents=True)
            for number in numbers:
                draw(pattern, number).save(folder / below / label / f"{number + 1}.jpg", quality=90)
    (folder / "reviews.csv").write_text("\n".join(["text,label", *reviews()]))
    (folder / "verses.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in sentences(120)))
    save_language_model(folder / "gpt2")
    (folder / "more").mkdir()
    draw("stripes", 50).save(folder / "new.jpg")
    draw("rings", 51).save(folder / "more" / "1.jpg")
    draw("stripes", 52).save(folder / "more" / "2.jpg")
    return folder


def test_every_block_is_of_a_kind_that_is_tested_here():
    kinds = [kind_of(language, text) for language, text in BLOCKS]
    assert "unknown" not in kinds, BLOCKS[kinds.index("unknown")]
    assert kinds.count("headstart") >= 1 and kinds.count("python") >= 1 and kinds.count("make") >= 1
    assert len(BLOCKS) == README.count("```") / 2


def test_every_command_does_what_it_says(place):
    commands = [line for language, text in BLOCKS if kind_of(language, text) == "headstart" for line in text.splitlines()]
    assert {expected_of(shlex.split(line)) for line in commands} == set(EXPECTED)
    for line in dict.fromkeys(commands):
        words = shlex.split(line, comments=True)
        if words[1] == "fit":
            shutil.rmtree(place / words[words.index("--out") + 1], ignore_errors=True)
        process = run(words, place)
        assert (process.returncode, process.stderr) == (0, ""), line
        assert EXPECTED[expected_of(words)](process.stdout, place), (line, process.stdout)


@pytest.mark.long
def test_every_block_of_python_runs(place):
    shutil.rmtree(place / "photos.hs", ignore_errors=True)
    blocks = [text for language, text in BLOCKS if kind_of(language, text) == "python"]
    printed = []
    for text in blocks:
        process = run([sys.executable, "-W", "error", "-c", text], place)
        assert (process.returncode, process.stderr) == (0, ""), text
        printed.append(process.stdout)
    report, label = printed[0].splitlines()
    assert report.startswith("accuracy ") and "backbone efficientnet-lite0" in report
    assert label == "food"
    assert headstart.load(place / "photos.hs").labels == ("animals", "food")


def test_the_folder_shown_is_one_that_fit_takes(place):
    (folder,) = [text for language, text in BLOCKS if kind_of(language, text) == "folder"]
    names = [line.split()[0].rstrip("/") for line in folder.splitlines()]
    assert names == ["photos", *sorted(path.name for path in (place / "photos").iterdir())]


def test_every_extra_named_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    named = {extra for page in pages for extra in re.findall(r'pip install "\.\[([\w,]+)\]"', page.read_text(encoding="utf-8"))}
    assert named and {one for extra in named for one in extra.split(",")} <= set(extras)
    # The package is not on an index: every command is one that works in a clone.
    assert not any(re.search(r'pip install "?headstart', page.read_text(encoding="utf-8")) for page in pages)


def test_every_target_of_make_is_there():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make ([\w-]+)$", README, re.MULTILINE) + re.findall(r"`make ([\w-]+)`", README)
    assert named and set(named) <= set(targets)


def test_every_option_and_command_named_in_a_sentence_is_there(place):
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    shown = {
        command: run([PROGRAM, command, "--help"], place).stdout for command in ("fit", "predict", "generate", "embed", "cache")
    }
    everything = " ".join(shown.values()) + run([PROGRAM, "--help"], place).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", re.sub(r"pip install [^`\n]*", "", README)))
    assert options and all(re.search(rf"{option}\b", everything) for option in options), options
    commands = set(re.findall(r"`headstart ([a-z]+)", prose))
    assert commands and all(re.search(rf"^│ {command} ", everything, re.MULTILINE) for command in commands), commands


def test_every_environment_variable_and_backbone_named_is_known():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "headstart").rglob("*.py"))
    variables = set(re.findall(r"HEADSTART_[A-Z_]+", README))
    assert variables and all(f'"{name}"' in source for name in variables)
    assert "`efficientnet-lite0` (the default)" in README
    assert all(f'"{prefix}"' in source for prefix in re.findall(r"`(\w+:)[A-Z]+`", README))


def test_every_file_linked_to_is_there():
    for page in PAGES:
        links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()] == []
