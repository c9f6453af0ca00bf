import io
import stat
import struct
import zipfile

import pytest

from medgan.data import zips
from medgan.data.dataset import open_dataset
from medgan.data.prepare import PrepareConfig, prepare
from medgan.data.scans import walk
from medgan.data.zips import unpacked
from medgan.errors import DataError
from tests.phantoms import body, ct_nifti, ct_series


def zipped(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def taken(source, work):
    excluded = []
    with unpacked(walk(source), work, excluded) as files:
        found = {place.parts: path.read_bytes() for path, place in files}
    assert not work.exists(), "names of members stay nowhere"
    return found, [item.reason for item in excluded]


def test_a_zip_gives_what_its_folder_gives(tmp_path):
    hu, _ = body(shift=7)
    for patient in range(2):
        ct_nifti(tmp_path / "in" / f"p{patient}", shift=patient)
    ct_series(tmp_path / "in" / "p2", hu, PatientID="", StudyInstanceUID="1.8")
    zipped(tmp_path / "all.zip", tree(tmp_path / "in"))
    for patient in range(3):
        zipped(tmp_path / "each" / f"p{patient}.zip", tree(tmp_path / "in" / f"p{patient}"))
    settings = PrepareConfig(size=32, workers=1, mask_label=-1, held_out=0.0)
    results = [prepare(settings, tmp_path / name, tmp_path / "out" / f"{i}.zip") for i, name in enumerate(("in", "all.zip", "each"))]
    assert {(r["identity"], r["patients"], r["kept"]) for r in results} == {(results[0]["identity"], 3, 36)}
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".info") == ["0.zip", "1.zip", "2.zip"]
    assert len(open_dataset(tmp_path / "out" / "1.zip")) == 36


def test_members_lie_where_their_zip_lies(tmp_path):
    zipped(
        tmp_path / "in" / "a" / "S1.zip", {"SCANS/1/x": b"1", "__MACOSX/x": b"2", "SCANS/1/.hidden": b"3", "SCANS/SNAPSHOTS/x.gif": b"4"}
    )
    (tmp_path / "in" / "plain").write_bytes(b"5")
    assert taken(tmp_path / "in", tmp_path / "w") == ({("a", "S1", "SCANS", "1", "x"): b"1", ("plain",): b"5"}, [])
    assert taken(tmp_path / "in" / "a" / "S1.zip", tmp_path / "w")[0] == {("SCANS", "1", "x"): b"1"}


def test_names_that_leave_the_folder_are_left_out(tmp_path):
    names = ["../evil", "/evil", "a/../../evil", "C:evil", "..\\evil", "\\evil", "good"]
    zipped(tmp_path / "in" / "z.zip", dict.fromkeys(names, b"x"))
    files, reasons = taken(tmp_path / "in", tmp_path / "w" / "deep")
    assert list(files) == [("good",)]
    assert reasons == ["a name in a zip that leaves its folder"] * 6
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(zipped(tmp_path / "in" / "z.zip", {}), "a") as archive:
        archive.writestr(link, str(tmp_path))
        archive.writestr("link/secret", b"over")
    files, reasons = taken(tmp_path / "in", tmp_path / "w")
    assert reasons == ["a link in a zip"]
    assert files == {("link", "secret"): b"over"}
    assert secret.read_text() == "key"


def test_a_bomb_is_refused_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "ALWAYS_ALLOWED", 10_000)
    zipped(tmp_path / "in" / "z.zip", {"a": b"\0" * 3_000_000})
    files, reasons = taken(tmp_path / "in", tmp_path / "w")
    assert (files, reasons) == ({}, ["a zip whose content is more than 200 times its size"])


def test_more_than_the_disk_holds_is_refused(tmp_path):
    path = zipped(tmp_path / "in" / "z.zip", {"a": b"x" * 100})
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\1\2")
    # The list claims 4 GB minus one byte, several times what the member's bytes can be.
    struct.pack_into("<L", raw, at + 24, 0xFFFFFFFE)
    path.write_bytes(raw)
    assert taken(tmp_path / "in", tmp_path / "w") == ({}, ["a zip whose content is more than 200 times its size"])


def test_a_member_longer_than_its_list_says_is_broken(tmp_path):
    path = zipped(tmp_path / "in" / "z.zip", {"a": b"x" * 5000, "b": b"fine"})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<L", raw, raw.find(b"PK\1\2") + 24, 10)
    path.write_bytes(raw)
    files, reasons = taken(tmp_path / "in", tmp_path / "w")
    assert (files, reasons) == ({("b",): b"fine"}, ["broken in its zip"])


def test_a_list_of_members_too_long_for_the_memory(tmp_path):
    path = zipped(tmp_path / "in" / "z.zip", {"a": b"x"})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<L", raw, raw.rfind(b"PK\5\6") + 12, 2**31)
    path.write_bytes(raw)
    assert taken(tmp_path / "in", tmp_path / "w")[1] == ["a zip of too many members"]


def test_encrypted_torn_and_double_members_are_reasons(tmp_path):
    path = zipped(tmp_path / "in" / "z.zip", {"locked": b"x" * 50, "torn": b"y" * 5000, "good": b"z"})
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"PK\1\2") + 8] |= 1
    at = raw.find(b"torn") + 4
    raw[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    files, reasons = taken(tmp_path / "in", tmp_path / "w")
    assert (files, reasons) == ({("good",): b"z"}, ["encrypted in its zip", "broken in its zip"])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("good", b"again")
    assert taken(tmp_path / "in", tmp_path / "w")[1][-1] == "a name that is in its zip twice"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\5\6" + b"\0" * 5])
def test_no_zip_at_all_is_a_reason(tmp_path, content):
    (tmp_path / "z.zip").write_bytes(content)
    assert taken(tmp_path, tmp_path.parent / "w") == ({}, ["no readable zip"])


def test_zips_in_zips_are_opened_once_and_not_for_ever(tmp_path):
    content = b"deepest"
    for level in range(4):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(f"{level}.zip" if level else "file", content)
            archive.writestr(f"beside{level}", b"b")
        content = buffer.getvalue()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "z.zip").write_bytes(content)
    files, reasons = taken(tmp_path / "in", tmp_path / "w")
    assert sorted(parts[-1] for parts in files) == ["beside2", "beside3"]
    assert reasons == ["a zip in a zip in a zip"]


def test_nothing_but_a_broken_zip_is_a_data_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "DOE_JANE.zip").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"no scan in the input \(1 x no readable zip\)") as caught:
        prepare(PrepareConfig(size=32, workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert "DOE" not in caught.value.line


def test_a_result_of_prepare_among_the_scans_is_no_scan(tmp_path):
    """Its pictures are cut already, and the held-out ones would come back for training; pictures in any other zip are what was asked for."""
    from tests.data import layouts

    layouts.pngs(tmp_path / "first")
    prepare(PrepareConfig(recipe="png", size=64, workers=1), tmp_path / "first", tmp_path / "in" / "old.zip")
    layouts.pngs(tmp_path / "in" / "new")
    new = prepare(PrepareConfig(recipe="png", size=64, workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert (new["kept"], new["dropped"]) == (4, {"a dataset that prepare wrote, no scans": 1})
    with pytest.raises(DataError, match="1 x a dataset that prepare wrote, no scans") as caught:
        prepare(PrepareConfig(recipe="png", size=64, workers=1), tmp_path / "in" / "old.zip", tmp_path / "again.zip")
    assert "medgan train takes the dataset as it is" in caught.value.fix


@pytest.mark.parametrize("change", ["another file", "manifest", "official"])
def test_a_foreign_zip_that_only_looks_like_a_result_is_unpacked(tmp_path, change):
    """Files of these names are common: with anything else in the zip, or a manifest of another kind, its pictures are raw data."""
    from tests.data import layouts

    layouts.pngs(tmp_path / "first")
    prepare(PrepareConfig(recipe="png", size=64, workers=1), tmp_path / "first", tmp_path / "old.zip")
    with zipfile.ZipFile(tmp_path / "old.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if change == "another file":
        members["readme.txt"] = b"from elsewhere"
    elif change == "manifest":
        members["manifest.csv"] = b"image,patient\n"
    else:
        members = {name: content for name, content in members.items() if name not in ("manifest.csv", "recipe.json")}
    zipped(tmp_path / "in" / "foreign.zip", members)
    made = prepare(PrepareConfig(recipe="png", size=64, workers=1), tmp_path / "in", tmp_path / "out.zip")
    assert made["kept"] == 4
