import io
import os
import stat
import tarfile
import zipfile

import pytest

from headstart.data import archives
from headstart.data.archives import unpack
from headstart.data.source import read
from headstart.errors import CacheError, DataError
from test_data_folders import fill, put, three_parts

SUFFIXES = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]


def pack(path, members):
    """Write an archive of (name, bytes) members, whatever the names are."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members:
                file.writestr(name, data)
        return path
    packing = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.name.rpartition(".")[2], "w")
    with tarfile.open(path, packing) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def special_tar(path, kind, target=""):
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("a/evil")
        info.type, info.linkname = kind, target
        file.addfile(info)
    return path


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_archives_are_read_below_one_top_folder_and_unpacked_once(tmp_path, suffix):
    path = pack(
        tmp_path / f"set{suffix}",
        [("top/a/1.jpg", b"1"), ("top/b/2.jpg", b"2"), ("__MACOSX/top/a/._1.jpg", b"m"), ("top/.DS_Store", b"d")],
    )
    root = tmp_path / "cache" / "unpacked"
    dataset = read(path, unpack_root=root)
    assert [(s.id, s.labels[0], s.item.read_bytes()) for s in dataset.samples] == [
        ("a/1.jpg", "a", b"1"),
        ("b/2.jpg", "b", b"2"),
    ]
    assert dataset.source == f"archive set{suffix}"
    (folder,) = root.iterdir()
    before = folder.stat()
    copy = put(tmp_path / f"renamed{suffix}", path.read_bytes())
    assert [s.item for s in read(copy, unpack_root=root).samples] == [s.item for s in dataset.samples]
    assert (folder.stat().st_ino, folder.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_one_table_of_an_archive_is_read(tmp_path):
    path = pack(
        tmp_path / "set.zip",
        [("d/labels.csv", b"path,label\nimg/1.jpg,x\nimg/2.jpg,y\n"), ("d/img/1.jpg", b"1"), ("d/img/2.jpg", b"2")],
    )
    assert {s.id: s.labels[0] for s in read(path, unpack_root=tmp_path / "u").samples} == {"img/1.jpg": "x", "img/2.jpg": "y"}
    path = pack(tmp_path / "text.tar.gz", [("labels.tsv", b"text\tlabel\nhello\tx\nbye\ty\n")])
    assert [s.item for s in read(path, unpack_root=tmp_path / "u").samples] == ["hello", "bye"]


def test_the_cache_of_the_user_is_the_default_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    dataset = read(pack(tmp_path / "set.zip", [("a/1.jpg", b"1"), ("b/2.jpg", b"2")]))
    assert dataset.samples[0].item.is_relative_to(tmp_path / "cache" / "unpacked")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.jpg", "'..'"),
        ("a/../../evil.jpg", "'..'"),
        ("a\\..\\..\\evil.jpg", "'..'"),
        ("/tmp/evil.jpg", "absolute"),
        ("\\\\host\\evil.jpg", "absolute"),
        ("C:\\evil.jpg", "absolute"),
        ("a/" + "x" * 300, "file system"),
        ("good/1.jpg", "more than once"),
        ("good/1.jpg/deeper.jpg", "a file and a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_would_do_harm_are_refused_by_name(tmp_path, suffix, name, reason):
    path = pack(tmp_path / f"evil{suffix}", [("good/1.jpg", b"1"), (name, b"2")])
    root = tmp_path / "jail" / "unpacked"
    with pytest.raises(DataError) as error:
        unpack(path, root)
    three_parts(error, repr(name[:80])[:60], reason)
    assert everything_below(tmp_path / "jail") == ["unpacked"]
    assert everything_below(tmp_path) == [f"evil{suffix}", "jail", "jail/unpacked"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.LNKTYPE, "../x"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, target):
    with pytest.raises(DataError) as error:
        unpack(special_tar(tmp_path / "evil.tar", kind, target), tmp_path / "u")
    three_parts(error, "'a/evil'", "link or a device")
    assert everything_below(tmp_path / "u") == []


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("a/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'a/link', which is a link"):
        unpack(tmp_path / "evil.zip", tmp_path / "u")


def test_encrypted_zips_are_refused(tmp_path):
    path = pack(tmp_path / "set.zip", [("a/1.jpg", b"1")])
    data = bytearray(path.read_bytes())
    # The flag stands at offset 6 of the local header and 8 of the central one.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="'a/1.jpg', which is encrypted"):
        unpack(path, tmp_path / "u")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs_are_refused_while_unpacking(tmp_path, suffix):
    path = pack(tmp_path / f"bomb{suffix}", [("a/1.jpg", bytes(40 * 2**20))])
    assert path.stat().st_size < 2**20
    with pytest.raises(DataError) as error:
        unpack(path, tmp_path / "u")
    three_parts(error, "'a/1.jpg'", "200 times")
    assert everything_below(tmp_path / "u") == []


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path):
    path = pack(tmp_path / "lie.zip", [("a/1.jpg", bytes(5000))])
    data = path.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, tmp_path / "u")


def test_number_and_total_size_are_bounded(tmp_path, monkeypatch):
    path = pack(tmp_path / "set.tar", [(f"a/{i}.jpg", b"12345") for i in range(10)])
    monkeypatch.setattr(archives, "MAX_MEMBERS", 9)
    with pytest.raises(DataError, match="'a/9.jpg', which is one more than the 9 members"):
        unpack(path, tmp_path / "u")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 49)
    with pytest.raises(DataError, match="'a/9.jpg', which brings the unpacked size above the 49 bytes"):
        unpack(path, tmp_path / "u")
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 50)
    assert len([name for name in everything_below(unpack(path, tmp_path / "u")) if not name.startswith(".")]) == 11


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["cut", "noise", "nothing"])
def test_damaged_archives_leave_nothing_behind(tmp_path, suffix, damage):
    whole = pack(tmp_path / f"set{suffix}", [(f"a/{i}.jpg", os.urandom(3000)) for i in range(5)]).read_bytes()
    broken = {"cut": whole[: len(whole) // 2], "noise": os.urandom(2000), "nothing": b""}[damage]
    path = put(tmp_path / f"broken{suffix}", broken)
    with pytest.raises(DataError) as error:
        unpack(path, tmp_path / "u")
    three_parts(error, f"broken{suffix}", "cannot be unpacked")
    assert everything_below(tmp_path / "u") == []


def test_an_archive_of_nothing_is_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="is empty"):
        read(pack(tmp_path / "set.zip", []), unpack_root=tmp_path / "u")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    path = pack(tmp_path / "set.zip", [("a/1.jpg", b"1"), ("b/1.jpg", b"1")])
    fill(tmp_path, "file")
    with pytest.raises(CacheError) as error:
        unpack(path, tmp_path / "file" / "unpacked")
    three_parts(error, "HEADSTART_CACHE")


def damage(path, how):
    data = bytearray(path.read_bytes())
    match how:
        case "flipped":  # a bit of the third header
            data[2 * 1024 + 3] ^= 1
        case "cut between members":
            del data[4 * 1024 :]
        case "cut in a header":
            del data[4 * 1024 + 100 :]
        case "cut in a member":
            del data[4 * 1024 + 514 :]
        case "zeros over a header":
            data[2 * 1024 : 2 * 1024 + 512] = bytes(512)
        case "joined":
            data += bytes(data)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "how", ["flipped", "cut between members", "cut in a header", "cut in a member", "zeros over a header", "joined"]
)
def test_a_tar_that_lost_members_is_refused(tmp_path, how):
    path = pack(tmp_path / "set.tar", [(f"{'ab'[i % 2]}/{i}.jpg", b"%d" % i) for i in range(12)])
    damage(path, how)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, tmp_path / "u")
    assert everything_below(tmp_path / "u") == []


def test_a_whole_tar_with_one_end_block_is_read(tmp_path):
    path = pack(tmp_path / "set.tar", [("a/1.jpg", b"1"), ("b/2.jpg", b"2")])
    path.write_bytes(path.read_bytes()[: 4 * 512 + 512])
    assert len(read(path, unpack_root=tmp_path / "u").samples) == 2


def test_chained_long_names_and_bad_sparse_headers_end_in_words(tmp_path):
    chained = tarfile.TarInfo("././@LongLink")
    chained.type, chained.size = tarfile.GNUTYPE_LONGNAME, 2
    block = chained.tobuf(tarfile.GNU_FORMAT) + b"x\0".ljust(512, b"\0")
    sparse = tarfile.TarInfo("a/1.jpg")
    sparse.pax_headers = {"GNU.sparse.map": "1,x,3", "GNU.sparse.size": "z"}
    for content in (block * 3_000, sparse.tobuf(tarfile.PAX_FORMAT) + bytes(1024)):
        path = put(tmp_path / "set.tar", content)
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack(path, tmp_path / "u")


@pytest.mark.parametrize("change", ["removed", "cut", "planted", "planted link", "no manifest"])
def test_a_changed_folder_of_the_cache_is_unpacked_again(tmp_path, change):
    path = pack(tmp_path / "set.zip", [("a/1.jpg", b"11"), ("b/2.jpg", b"22")])
    folder = unpack(path, tmp_path / "u")
    before = everything_below(folder)
    match change:
        case "removed":
            (folder / "a/1.jpg").unlink()
        case "cut":
            (folder / "a/1.jpg").write_bytes(b"1")
        case "planted":
            put(folder / "c/3.jpg", b"3")
        case "planted link":
            (folder / "c").symlink_to(tmp_path)
        case "no manifest":
            (folder / archives._MANIFEST).unlink()
    assert unpack(path, tmp_path / "u") == folder
    assert everything_below(folder) == before
    assert (folder / "a/1.jpg").read_bytes() == b"11"
    assert [entry.name for entry in (tmp_path / "u").iterdir()] == [folder.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", ["set.tar", "set.zip"])
def test_a_pipe_or_a_device_is_no_archive(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="no plain file"):
        unpack(tmp_path / name, tmp_path / "u")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no plain file"):
        unpack(tmp_path / name, tmp_path / "u")
