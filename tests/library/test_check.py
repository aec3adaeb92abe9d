"`check_pairs` and `gen2gen check`: each kind of mistake is found, sound pairs are left in peace."
import json, warnings

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gen2gen.check import check_pairs, contact_sheet
from gen2gen.cli import app
from gen2gen.pairs import Pairs, photos

X = photos(size=64)[:5]
Y = 255 - X[..., ::-1]

@pytest.fixture
def task(tmp_path): return Pairs(X, Y, list("abcde")).save(tmp_path/"task")

def kinds(*args): return sorted(o.kind for o in check_pairs(*args).findings)
def write(path, x, **kw): Image.fromarray(x).save(path, **kw)

def cli(*args):
    r = CliRunner().invoke(app, ["check", *map(str, args)], prog_name="gen2gen")
    assert r.exception is None or isinstance(r.exception, SystemExit), r.exception
    return r

@pytest.mark.parametrize("change", [lambda x: 255-x, lambda x: x[:, :, ::-1], lambda x: x[:, ::-1], lambda x: x//2, lambda x: x[:, ::-1, ::-1],
                                    lambda x: np.where(x.mean(-1, keepdims=True) > 128, 255, 0).astype(np.uint8).repeat(3, -1)[..., :3]])
def test_sound_pairs_are_left_in_peace(tmp_path, change):
    assert kinds(Pairs(X, change(X)).save(tmp_path/"task")) == []

def test_unreadable_files(task):
    (task/"input/a.png").write_text("hello")
    (task/"target/b.png").write_bytes(b"")
    report = check_pairs(task)
    assert [(o.kind, o.names) for o in report.findings] == [("unreadable", ("a",)), ("unreadable", ("b",))] and report.status == 2

def test_sizes(task):
    write(task/"target/a.png", Y[0, :32, :32])
    write(task/"target/b.png", Y[0, :32])
    assert kinds(task) == ["proportions", "sizes", "sizes"]

def test_the_same_pair_twice_and_a_contradiction(tmp_path):
    assert kinds(Pairs(X[[0, 0, 1, 1]], np.stack([Y[0], Y[0], Y[1], X[2]])).save(tmp_path/"task")) == ["contradiction", "duplicate"]

def test_training_and_test_share_an_input(task, tmp_path):
    "The same pixels are an error, a copy saved again as JPEG is a warning"
    found = check_pairs(task, Pairs(X[2:3], Y[2:3], ["z"]).save(tmp_path/"same")).findings
    assert [(o.level, o.kind, o.names) for o in found] == [("error", "leak", ("c", "z"))]
    for side, x in (("input", X), ("target", Y)):
        (tmp_path/"test"/side).mkdir(parents=True)
        write(tmp_path/"test"/side/"z.jpg", x[2], quality=90)
    report = check_pairs(task, tmp_path/"test")
    assert [(o.level, o.kind, o.names) for o in report.findings] == [("warning", "alike", ("c", "z"))]

def test_a_little_noise_is_a_task(tmp_path):
    "Input and target look the same from afar, and are not"
    noisy = np.clip(X + np.random.default_rng(0).normal(0, 20, X.shape), 0, 255).astype(np.uint8)
    assert kinds(Pairs(noisy, X).save(tmp_path/"task")) == []

def test_input_and_target_are_one(tmp_path):
    assert kinds(Pairs(X, np.concatenate([X[:1], Y[1:]])).save(tmp_path/"one")) == ["unchanged"]
    report = check_pairs(Pairs(X, X).save(tmp_path/"all"))
    assert report.findings[0].level == "error" and "nothing to learn" in report.findings[0].text

@pytest.mark.parametrize("size,d", [(64, 2), (64, 6), (300, 15)])
def test_shifted_targets(tmp_path, size, d):
    x = photos(size=size)[:3]
    y = 255 - np.roll(x, (d, -d), (1, 2))
    y[0] = 255 - x[0]
    found = check_pairs(Pairs(x, y, list("abc")).save(tmp_path/"task")).findings
    assert [(o.kind, o.names) for o in found] == [("shifted", ("b", "c"))]
    number = int(found[0].text.split("b by ")[1].split()[0])
    assert abs(number - d) <= size/64

def test_moving_is_a_task(tmp_path):
    assert "if the task is to move" in check_pairs(Pairs(X, np.roll(X, 5, 2)).save(tmp_path/"task")).findings[0].text

def test_modes_are_told(tmp_path):
    for side in ("input", "target"): (tmp_path/side).mkdir()
    picture = Image.fromarray(X[0])
    picture.convert("RGBA").save(tmp_path/"input/a.png")
    picture.convert("P").save(tmp_path/"target/a.png")
    Image.fromarray(Y[1]).convert("CMYK").save(tmp_path/"input/b.jpg")
    Image.fromarray(X[1, ..., 0].astype(np.uint16)*257).save(tmp_path/"target/b.png")
    text = "\n".join(o.text for o in check_pairs(tmp_path).findings if o.kind == "mode")
    for words in ("PNG RGBA: transparent pixels are laid over white", "PNG P", "JPEG CMYK: converted to RGB", "PNG I;16: 16-bit grey"): assert words in text

def test_dark_data_and_files_left_out(task):
    write(task/"target/a.png", (X[0, ..., 0] > 100).astype(np.uint8))
    (task/"input/f.heic").write_bytes(b"x")
    found = {o.kind: o.text for o in check_pairs(task).findings}
    assert "1 of 255" in found["values"] and "f.heic" in found["unread"]

def test_nothing_is_warned_beside_the_report(task):
    (task/"input/f.heic").write_bytes(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pairs(task)

# The command
def test_exit_status_for_scripts(task, tmp_path):
    assert cli(task).exit_code == 0
    assert cli(task, "--test", task).exit_code == 2
    (task/"input/f.heic").write_bytes(b"x")
    r = cli(task)
    assert r.exit_code == 3 and "warning" in r.stdout and r.stderr == ""
    r = cli(tmp_path/"nowhere")
    assert (r.exit_code, r.stdout, r.stderr.count("\n")) == (2, "", 1)

def test_json(task):
    told = json.loads(cli(task, "--test", task, "--json").stdout)
    assert (told["pairs"], told["test_pairs"], told["findings"][0]["kind"]) == (5, 5, "leak")

def test_sheet(task, tmp_path):
    sheet = tmp_path/"sheet.png"
    assert cli(task, "--sheet", sheet).exit_code == 0 and Image.open(sheet).format == "PNG"
    before = sheet.read_bytes()
    r = cli(task, "--sheet", sheet)
    assert r.exit_code == 2 and "--overwrite" in r.stderr and sheet.read_bytes() == before
    (task/"input/a.png").write_bytes(b"")
    assert cli(task, "--sheet", sheet, "--overwrite").exit_code == 2 and sheet.read_bytes() != before
    r = cli(task, "--sheet", task/"input")
    assert r.exit_code == 2 and "exists already" in r.stderr

def test_a_sheet_of_many_is_cut(task):
    assert contact_sheet(check_pairs(task), most=2).size[1] < contact_sheet(check_pairs(task)).size[1]
