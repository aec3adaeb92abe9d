"Every unfit input of `pairs` is refused by one clear error that names the file or the remedy, and nothing half-written is left."
import errno, os, stat, zipfile

import numpy as np
import pytest
from PIL import Image

from gen2gen.pairs import Pairs, load_images, load_pairs, read_image

rng = np.random.default_rng(0)
def noise(h=16, w=16): return Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))

@pytest.fixture
def task(tmp_path):
    "A sound folder of two pairs."
    for side in ("input", "target"):
        (tmp_path/"task"/side).mkdir(parents=True)
        for name in "ab": noise().save(tmp_path/"task"/side/f"{name}.png")
    return tmp_path/"task"

def refused(fn, *words, error=ValueError):
    with pytest.raises(error) as e: fn()
    for word in words: assert word in str(e.value), f"{word!r} is missing in: {e.value}"

# Folders
def test_sound_folder(task): assert load_pairs(task).names == ["a", "b"]
def test_no_folder(tmp_path): refused(lambda: load_pairs(tmp_path/"nowhere"), "nowhere", "no such folder", error=FileNotFoundError)
def test_file_instead_of_folder(task): refused(lambda: load_pairs(task/"input/a.png"), "neither a folder nor a .zip")

def test_no_pairs(tmp_path):
    for side in ("input", "target"): (tmp_path/side).mkdir()
    refused(lambda: load_pairs(tmp_path), "input holds no pictures")

def test_no_target_folder(task):
    (task/"target").rename(task/"answers")
    refused(lambda: load_pairs(task), "no folder target/", error=FileNotFoundError)

@pytest.mark.parametrize("side,other", [("input", "target"), ("target", "input")])
def test_one_side_missing(task, side, other):
    (task/side/"a.png").unlink()
    refused(lambda: load_pairs(task), f"{other}/a.png", f"no file with the same stem in {side}/")

def test_same_stem_twice(task):
    noise().save(task/"input/a.jpg")
    refused(lambda: load_pairs(task), "a.jpg", "a.png", "same stem")

def test_hidden_and_other_files_are_left_out(task):
    (task/"input/.DS_Store").write_bytes(b"x"); (task/"input/notes.txt").write_text("x")
    assert len(load_pairs(task)) == 2

def test_any_case_and_mixed_suffixes(task):
    for side, suffix in (("input", "JPG"), ("target", "WebP")): noise().save(task/side/f"c.{suffix}")
    assert load_pairs(task).names == ["a", "b", "c"]

def test_link_out_of_the_folder(task, tmp_path):
    noise().save(tmp_path/"secret.png")
    (task/"input/a.png").unlink(); (task/"input/a.png").symlink_to(tmp_path/"secret.png")
    refused(lambda: load_pairs(task), "a.png", "leads out of")

def test_linked_side_out_of_the_folder(task, tmp_path):
    (task/"input").rename(tmp_path/"elsewhere"); (task/"input").symlink_to(tmp_path/"elsewhere")
    refused(lambda: load_pairs(task), "leads out of")

# Sizes
def test_sizes_differ_within_a_pair(task):
    noise(8, 16).save(task/"target/a.png")
    refused(lambda: load_pairs(task), "input/a.png is 16×16", "target/a.png is 8×16", "size=", "resize=")

def test_sizes_differ_between_pairs(task):
    for side in ("input", "target"): noise(8, 12).save(task/side/"b.png")
    refused(lambda: load_pairs(task), "b.png is 8×12", "a.png is 16×16", "resize=")
    for resize in ("pad", "crop", "stretch"): assert load_pairs(task, size=(10, 20), resize=resize).size == (10, 20)

def test_size_without_policy(task): refused(lambda: load_pairs(task, size=32), "a.png is 16×16", "size is 32×32", "resize=")
def test_policy_without_size(task): refused(lambda: load_pairs(task, resize="pad"), "needs a size")
def test_unknown_policy(task): refused(lambda: load_pairs(task, size=8, resize="squash"), "'pad', 'crop', 'stretch'")
def test_impossible_size(task): refused(lambda: load_pairs(task, size=0, resize="pad"), "size=0")

def test_pad_would_misalign_a_pair(task):
    noise(8, 16).save(task/"target/a.png")
    for resize in ("pad", "crop"): refused(lambda: load_pairs(task, size=8, resize=resize), "input/a.png", "target/a.png", "aligned")
    assert load_pairs(task, size=8, resize="stretch").size == (8, 8)

@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
def test_both_sides_undergo_one_operation(task, resize):
    noise(24, 40).save(task/"input/a.png")
    (task/"target/a.png").write_bytes((task/"input/a.png").read_bytes())
    p = load_pairs(task, size=(12, 12), resize=resize)[0]
    assert (p.inputs == p.targets).all()

# Files
def broken(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path

@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("share", [.1, .5, .9])
def test_truncated(tmp_path, suffix, share):
    noise(64, 64).save(tmp_path/f"x.{suffix}")
    path = broken(tmp_path/f"x.{suffix}", int(share*os.path.getsize(tmp_path/f"x.{suffix}")))
    refused(lambda: read_image(path), f"x.{suffix}", "damaged", "again")

def test_truncated_within_a_task(task):
    broken(task/"target/b.png", 300)
    refused(lambda: load_pairs(task), "target/b.png", "damaged")

def test_empty_file(task):
    (task/"input/b.png").write_bytes(b"")
    refused(lambda: load_pairs(task), "input/b.png", "empty (0 bytes)")

def test_not_a_picture(tmp_path):
    (tmp_path/"x.png").write_text("hello")
    refused(lambda: read_image(tmp_path/"x.png"), "x.png", "no picture")

@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated(tmp_path, suffix):
    noise().save(tmp_path/f"x.{suffix}", save_all=True, append_images=[noise(), noise()])
    refused(lambda: read_image(tmp_path/f"x.{suffix}"), f"x.{suffix}", "holds 3 frames", "save the one frame")

def test_decompression_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (12, 16):
        noise(side, side).save(tmp_path/"x.png")
        refused(lambda: read_image(tmp_path/"x.png"), "x.png", "more than 100 pixels")

def test_floating_point_file(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path/"x.tif")
    refused(lambda: read_image(tmp_path/"x.tif"), "x.tif", "floating point")

# Forms that are converted
def pixel(path): return np.asarray(read_image(path))[0, 0].tolist()

def test_16_bit_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(tmp_path/"x.png")
    assert pixel(tmp_path/"x.png") == [128]*3

def test_grey_and_bilevel(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path/"g.png"); Image.new("1", (4, 4), 1).save(tmp_path/"b.png")
    assert (pixel(tmp_path/"g.png"), pixel(tmp_path/"b.png")) == ([77]*3, [255]*3)

def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path/"x.jpg", quality=95)
    assert np.abs(np.subtract(pixel(tmp_path/"x.jpg"), (255, 0, 0))).max() <= 3

def test_alpha_over_ground(tmp_path):
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path/"la.png")
    p = Image.new("P", (4, 4), 0); p.putpalette([10, 20, 30]*256); p.save(tmp_path/"p.png", transparency=0)
    for name in ("la", "p"):
        assert pixel(tmp_path/f"{name}.png") == [255]*3
        assert np.asarray(read_image(tmp_path/f"{name}.png", ground=(1, 2, 3)))[0, 0].tolist() == [1, 2, 3]

@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path, suffix):
    exif = Image.Exif(); exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path/f"x.{suffix}", exif=exif)
    assert read_image(tmp_path/f"x.{suffix}").size == (10, 20)

# Zips
def pack(task, path, top=""):
    with zipfile.ZipFile(path, "w") as z:
        for f in sorted(task.rglob("*.png")): z.write(f, top + f.relative_to(task).as_posix())
    return path

@pytest.mark.parametrize("top", ["", "task/"])
def test_zip_is_the_folder(task, tmp_path, top):
    path, want = pack(task, tmp_path/"t.zip", top), load_pairs(task)
    with zipfile.ZipFile(path, "a") as z: z.writestr("__MACOSX/._a.png", b"x")
    got = load_pairs(path)
    assert got.names == want.names and (got.inputs == want.inputs).all() and (got.targets == want.targets).all()

@pytest.mark.parametrize("name", ["../evil.png", "input/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"])
def test_zip_slip(task, tmp_path, name):
    path = pack(task, tmp_path/"t.zip")
    with zipfile.ZipFile(path, "a") as z: z.writestr(name, b"x")
    before = sorted(tmp_path.rglob("*"))
    for read in (load_pairs, load_images): refused(lambda: read(path), "t.zip", "leads out of the zip", "nothing was read")
    assert sorted(tmp_path.rglob("*")) == before

def test_zip_with_a_link(task, tmp_path):
    path, link = pack(task, tmp_path/"t.zip"), zipfile.ZipInfo("input/c.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as z: z.writestr(link, "/etc/passwd")
    refused(lambda: load_pairs(path), "input/c.png", "leads out")

def test_zip_too_big(task, tmp_path, monkeypatch):
    path = pack(task, tmp_path/"t.zip")
    monkeypatch.setattr("gen2gen.pairs._check_members.__defaults__", (1000,))
    refused(lambda: load_pairs(path), "t.zip unpacks to")

def test_zip_cut_short(task, tmp_path): refused(lambda: load_pairs(broken(pack(task, tmp_path/"t.zip"), 900)), "t.zip", "not a whole zip")

def test_zip_with_a_damaged_member(task, tmp_path):
    path = pack(task, tmp_path/"t.zip")
    data = bytearray(path.read_bytes()); data[200] ^= 255; path.write_bytes(data)
    refused(lambda: load_pairs(path), "t.zip/input/a.png", "damaged")

def test_zip_one_side_missing(task, tmp_path):
    (task/"target/a.png").unlink()
    refused(lambda: load_pairs(pack(task, tmp_path/"t.zip")), "input/a.png", "in target/")

# Arrays
x = np.zeros((3, 8, 8, 3), np.uint8)
@pytest.mark.parametrize("bad,words", [
    (x/255, ["float64", "(255*x).round()"]), (x + 7.5, ["0–255", "x.round()"]), (x - 300., ["-300", "scale them"]),
    (x*np.nan, ["NaN", "index (0, 0, 0, 0)"]), (x + np.inf, ["infinity"]), (x.astype(int), ["int64", "astype('uint8')"]), (x.astype(int) - 1, ["-1"]),
    (x[:0], ["empty"]), ([], ["empty"]), (x[0], ["x[None]"]), (x.transpose(0, 3, 1, 2), ["np.moveaxis"]), (x[..., 0], ["grey"]), (np.zeros((2, 8, 8, 4), np.uint8), ["alpha"]),
    ([x[0], x[0, :4]], ["[1] is 4×8", "[0] is 8×8"]), (noise(), ["[picture]"]), ("a.png", ["load_pairs"]), (["a.png"], ["load_images"]), ([x[0], x[0]/255], ["inputs[1]", "float64"])])
def test_arrays(bad, words): refused(lambda: Pairs(bad, x), "inputs", *words)

def test_counts_and_sizes():
    refused(lambda: Pairs(x, x[:2]), "3 inputs and 2 targets")
    refused(lambda: Pairs(x, x[:, :4]), "8×8", "4×8")
    refused(lambda: Pairs(x, x, ["a"]), "1 names for 3 pairs")
    refused(lambda: Pairs(x, x, ["a", "a", "b"]), "more than once: a")

@pytest.mark.parametrize("n", [0, 3, 100, -1])
def test_split_beyond_the_data(n): refused(lambda: Pairs(x, x).split(n), f"n={n}", "there are 3 pairs")
def test_augment(): refused(lambda: Pairs(x, x).augment(crops=1.5), "crops=1.5"); refused(lambda: Pairs(x, x).augment(copies=0), "copies=0")

# Inputs without targets
def test_load_images(task, tmp_path):
    assert load_images(task/"input").shape == load_images([task/"input/a.png", task/"target/b.png"]).shape == (2, 16, 16, 3)
    assert load_images(task/"input/a.png", size=8, resize="crop").shape == (1, 8, 8, 3)
    refused(lambda: load_images([]), "empty")
    refused(lambda: load_images(task), "holds no pictures")
    refused(lambda: load_images(task/"input/zz.png"), "zz.png", error=FileNotFoundError)

# Writing
def test_save_never_overwrites(task): refused(lambda: load_pairs(task).save(task), "exists already", error=FileExistsError)

@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "a\\b", ".hidden", ""])
def test_save_names_stay_in_the_folder(tmp_path, name):
    refused(lambda: Pairs(x[:1], x[:1], [name]).save(tmp_path/"t"), "file name")
    assert not list(tmp_path.iterdir())

def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    whole, calls = Image.Image.save, []
    def save(self, path):
        calls.append(path)
        if len(calls) == 3: raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, path)
    monkeypatch.setattr(Image.Image, "save", save)
    refused(lambda: Pairs(x, x).save(tmp_path/"t"), str(tmp_path/"t"), "No space left", error=OSError)
    assert not list(tmp_path.iterdir())
