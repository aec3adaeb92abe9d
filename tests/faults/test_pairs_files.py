"Files as people have them: colour profiles, depths, layouts of other tools, names from a Mac. Nothing is lost, nothing silently wrong."
import io, struct, unicodedata, warnings, zipfile, zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from gen2gen.pairs import SUFFIXES, Pairs, as_pictures, load_images, load_pairs, read_image, to_rgb
from gen2gen.sources import load_depth

rng = np.random.default_rng(0)
def noise(h=16, w=16): return Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))

def refused(fn, *words, error=ValueError):
    with pytest.raises(error) as e: fn()
    for word in words: assert word in str(e.value), f"{word!r} is missing in: {e.value}"

def warned(fn, *words):
    "What `fn` gives, after one warning that holds the words."
    with pytest.warns(UserWarning) as noted: out = fn()
    assert len(noted) == 1, [str(o.message) for o in noted]
    for word in words: assert word in str(noted[0].message), f"{word!r} is missing in: {noted[0].message}"
    return out

def silent(fn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fn()

def pixel(path, **kw): return np.asarray(read_image(path, **kw))[0, 0].tolist()

# Colour profiles
def s15(*values): return b"".join(struct.pack(">i", round(v*65536)) for v in values)

def profile(space, gamma, *primaries):
    "A small ICC profile: a gamma, and for RGB the XYZ of its primaries under D50."
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma*256)) + bytes(2)
    xyz = lambda v: b"XYZ " + bytes(4) + s15(*v)
    tags = {b"wtpt": xyz((.9642, 1, .8249)), b"cprt": b"text" + bytes(4) + b"none\0\0\0\0",
            b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79)}
    if space == b"GRAY": tags[b"kTRC"] = curve
    else:
        tags |= {o + b"TRC": curve for o in (b"r", b"g", b"b")}
        tags |= {o + b"XYZ": xyz(v) for o, v in zip((b"r", b"g", b"b"), primaries)}
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12*len(tags)
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body
    head = struct.pack(">I4sI4s4s4s12s4s", at + len(data), b"lcms", 0x02100000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    return head + bytes(28) + s15(.9642, 1, .8249) + bytes(128 - len(head) - 40) + table + data

ADOBE = profile(b"RGB ", 2.19921875, (.60974, .31111, .01947), (.20528, .62567, .06087), (.14919, .06322, .74457))
LINEAR_GREY = profile(b"GRAY", 1.)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_adobe_rgb_becomes_srgb(tmp_path, suffix):
    Image.new("RGB", (16, 16), (40, 200, 60)).save(tmp_path/f"x.{suffix}", icc_profile=ADOBE, quality=100)
    assert np.abs(np.subtract(pixel(tmp_path/f"x.{suffix}"), (0, 201, 37))).max() <= 3*(suffix in ("jpg", "webp")) + 1

def test_a_picture_in_memory_too():
    img = Image.new("RGB", (4, 4), (40, 200, 60))
    img.info["icc_profile"] = ADOBE
    assert np.abs(np.subtract(as_pictures([img])[0, 0, 0].tolist(), (0, 201, 37))).max() <= 1
    assert img.info["icc_profile"] == ADOBE and img.getpixel((0, 0)) == (40, 200, 60), "the picture given is not changed"
    once = to_rgb(img)
    assert np.array_equal(to_rgb(once), once), "it is not converted twice"

def test_profile_and_alpha(tmp_path):
    img = Image.new("RGBA", (4, 4), (40, 200, 60, 255))
    img.putpixel((0, 0), (40, 200, 60, 0))
    img.save(tmp_path/"x.png", icc_profile=ADOBE)
    assert pixel(tmp_path/"x.png") == [255]*3
    assert np.abs(np.subtract(read_image(tmp_path/"x.png").getpixel((1, 1)), (0, 201, 37))).max() <= 1

def test_palette_and_profile(tmp_path):
    img = Image.new("P", (4, 4), 0)
    img.putpalette([40, 200, 60]*256)
    img.save(tmp_path/"x.png", icc_profile=ADOBE)
    assert np.abs(np.subtract(pixel(tmp_path/"x.png"), (0, 201, 37))).max() <= 1

def test_srgb_pixels_stay_bit_for_bit(tmp_path):
    img = noise(64, 64)
    img.save(tmp_path/"x.png", icc_profile=SRGB)
    assert np.array_equal(read_image(tmp_path/"x.png"), img)

@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profile(tmp_path, mode):
    "Linear light of a fifth is a middle grey"
    img = Image.fromarray(np.full((4, 4), 55*257, np.uint16)) if mode == "I;16" else Image.new(mode, (4, 4), 55 if mode == "L" else (55, 255))
    with warnings.catch_warnings(): # 16 bits with a small maximum are warned of
        warnings.simplefilter("ignore")
        img.save(tmp_path/"x.png", icc_profile=LINEAR_GREY)
        assert np.abs(np.subtract(pixel(tmp_path/"x.png"), [128]*3)).max() <= 2

def test_grey_with_the_profile_of_colours(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path/"x.png", icc_profile=SRGB)
    assert pixel(tmp_path/"x.png") == [77]*3

def test_profile_of_other_pixels(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path/"x.png", icc_profile=LINEAR_GREY)
    refused(lambda: read_image(tmp_path/"x.png"), "x.png", "colour profile is for GRAY", "sRGB")

def test_damaged_profile(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path/"x.png", icc_profile=ADOBE[:200])
    refused(lambda: read_image(tmp_path/"x.png"), "x.png", "colour profile is damaged", "sRGB")

def test_adobe_rgb_by_exif_only(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"} # interoperability, within Exif
    Image.new("RGB", (16, 16)).save(tmp_path/"x.jpg", exif=exif)
    refused(lambda: read_image(tmp_path/"x.jpg"), "x.jpg", "Adobe RGB", "sRGB")

# PNG
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

def png(path, pixels, colour, depth, *extra):
    "A PNG of one row, of chunks that Pillow does not write."
    row = struct.pack(f">{len(pixels)}{'H' if depth == 16 else 'B'}", *pixels)
    head = struct.pack(">IIBBBBB", len(pixels)//{0: 1, 2: 3}[colour], 1, depth, colour, 0, 0, 0)
    parts = (b"IHDR", head), *extra, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*o) for o in parts))
    return path

def test_gamma(tmp_path):
    gamma = lambda g: (b"gAMA", struct.pack(">I", g))
    assert pixel(png(tmp_path/"a.png", (90, 90), 0, 8, gamma(45455))) == [90]*3
    assert pixel(png(tmp_path/"b.png", (90, 90), 0, 8, gamma(100000), (b"sRGB", b"\0"))) == [90]*3
    refused(lambda: read_image(png(tmp_path/"c.png", (90, 90), 0, 8, gamma(100000))), "c.png", "gamma is 1", "sRGB")

def test_transparent_colour_of_16_bits(tmp_path):
    "Of two greys that are one at 8 bits, one is transparent"
    path = png(tmp_path/"x.png", (40000, 40001), 0, 16, (b"tRNS", struct.pack(">H", 40000)))
    assert np.asarray(read_image(path))[0].tolist() == [[255]*3, [156]*3]
    assert pixel(path, ground=(1, 2, 3)) == [1, 2, 3]

def test_transparent_colour_of_8_bits(tmp_path):
    path = png(tmp_path/"x.png", (90, 91), 0, 8, (b"tRNS", struct.pack(">H", 90)))
    assert np.asarray(read_image(path))[0].tolist() == [[255]*3, [91]*3]

def test_transparent_rgb_of_16_bits(tmp_path):
    path = png(tmp_path/"x.png", (40000, 1, 2, 40000, 1, 3), 2, 16, (b"tRNS", struct.pack(">3H", 40000, 1, 2)))
    refused(lambda: read_image(path), "x.png", "transparent colour has 16 bits", "alpha channel")

# Data that fill a part of their range
@pytest.mark.parametrize("bits,factor", [(8, 256), (10, 64), (12, 16), (14, 4)])
def test_few_bits_in_16(tmp_path, bits, factor):
    top = 2**bits - 1
    Image.fromarray(np.array([[0, top]], np.uint16)).save(tmp_path/"x.png")
    img = warned(lambda: read_image(tmp_path/"x.png"), "x.png", f"is {top} of 65535", f"{bits} bits", f"by {factor}")
    assert img.getpixel((1, 0))[0] == round(top/257)

def test_12_bit_colours(tmp_path):
    "Pillow reads the upper byte of 16-bit RGB"
    warned(lambda: read_image(png(tmp_path/"x.png", (4095, 100, 0), 2, 16)), "x.png", "15 of 255", "multiply 12-bit data")

def test_mask_of_0_and_1(tmp_path):
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path/"x.png")
    warned(lambda: read_image(tmp_path/"x.png"), "x.png", "largest value is 1 of 255", "masks with 0 and 255")

def test_black_and_full_pictures_are_silent(tmp_path):
    for i, img in enumerate((Image.new("L", (4, 4)), noise(), Image.fromarray(np.full((4, 4), 65535, np.uint16)), Image.new("1", (4, 4), 1))):
        img.save(tmp_path/f"{i}.png")
        silent(lambda: read_image(tmp_path/f"{i}.png"))

def test_many_warnings_are_few_lines(tmp_path):
    for side in ("input", "target"):
        (tmp_path/side).mkdir()
        for i in range(9): Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path/side/f"{i}.png")
    for read, n in ((lambda: load_images(tmp_path/"input"), 9), (lambda: load_pairs(tmp_path), 18)):
        with pytest.warns(UserWarning) as noted: read()
        assert len(noted) == 4 and f"{n-3} more" in str(noted[3].message)

# What is left out
def lay(folder, names, size=16):
    "A folder with pictures at these paths."
    for name in names:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        noise(size, size).save(folder/name)
    return folder

@pytest.fixture
def task(tmp_path): return lay(tmp_path/"task", [f"{side}/{name}.png" for side in ("input", "target") for name in "ab"])

@pytest.mark.parametrize("kind", ["heic", "jxl", "mp4", "dng"])
def test_other_kinds_are_named(task, kind):
    (task/f"input/c.{kind}").write_bytes(b"x")
    assert len(warned(lambda: load_pairs(task), "input: not read: ", f"c.{kind}", ".png")) == 2
    assert len(warned(lambda: load_images(task/"input"), f"c.{kind}")) == 2
    refused(lambda: load_images(task/f"input/c.{kind}"), f"c.{kind}", f"kind .{kind} are not read", "save it as PNG")

def test_partner_of_another_kind(task):
    noise().save(task/"target/c.png")
    (task/"input/c.heic").write_bytes(b"x")
    with pytest.warns(UserWarning, match="not read: c.heic"):
        refused(lambda: load_pairs(task), "target/c.png", "c.heic is of a kind that is not read")

@pytest.mark.parametrize("where", ["input/more", "more"])
def test_subfolders_are_named(task, where):
    lay(task/where, ["c.png"])
    assert len(warned(lambda: load_pairs(task), "not read: more/")) == 2

def test_pictures_beside_the_folders_are_named(task):
    noise().save(task/"sheet.png")
    (task/"README.md").write_text("x")
    assert len(warned(lambda: load_pairs(task), "task: not read: sheet.png")) == 2

def test_what_systems_leave_behind_is_silent(task):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"): (task/"input"/name).write_bytes(b"x")
    assert len(silent(lambda: load_pairs(task))) == 2

def test_zip_names_what_is_left_out(task, tmp_path):
    with zipfile.ZipFile(tmp_path/"t.zip", "w") as z:
        for f in sorted(task.rglob("*.png")): z.write(f, f.relative_to(task).as_posix())
        z.writestr("input/c.heic", b"x")
        z.writestr("__MACOSX/input/._a.png", b"x")
    assert len(warned(lambda: load_pairs(tmp_path/"t.zip"), "not read: c.heic")) == 2

def test_zip_with_pictures_beside_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path/"t.zip", "w") as z:
        for name in ("a.png", "more/b.png"):
            noise().save(buf := io.BytesIO(), "PNG")
            z.writestr(name, buf.getvalue())
    assert len(warned(lambda: load_images(tmp_path/"t.zip"), "not read: more/")) == 1

@pytest.mark.skipif(".avif" not in SUFFIXES, reason="this Pillow cannot read AVIF")
def test_avif(task):
    for side in ("input", "target"): noise().save(task/side/"c.avif")
    assert silent(lambda: load_pairs(task)).names == ["a", "b", "c"]

def test_jfif(task):
    for side in ("input", "target"): noise().save(task/side/"c.jfif", format="JPEG")
    assert silent(lambda: load_pairs(task)).names == ["a", "b", "c"]

def test_the_first_picture_of_a_camera_file(tmp_path):
    "MPO is a JPEG with more pictures behind it"
    noise().save(tmp_path/"x.jpg", "MPO", save_all=True, append_images=[noise()])
    assert silent(lambda: read_image(tmp_path/"x.jpg")).size == (16, 16)

def test_other_formats_under_a_wrong_name_start_no_program(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was looked for"))
    (tmp_path/"x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    refused(lambda: read_image(tmp_path/"x.png"), "x.png", "no picture that Pillow can read")

# Names
NFC, NFD = (unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD"))

def test_names_of_two_unicode_forms_match(tmp_path):
    task = lay(tmp_path/"task", [f"input/{NFC}.png", f"target/{NFD}.png"])
    assert load_pairs(task).names == [NFC]
    depth = lay(tmp_path/"room", [f"rgb/{NFC}.png"])
    (depth/"depth").mkdir()
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(depth/"depth"/f"{NFD}.png")
    assert load_depth(depth, 16).names == [NFC]

def test_a_name_as_typed_and_as_on_disk(tmp_path):
    lay(tmp_path, [f"{NFD}.png"])
    assert load_images(tmp_path/f"{NFC}.png").shape == (1, 16, 16, 3)
    refused(lambda: load_images(tmp_path/"né.png"), "né.png: no such file", error=FileNotFoundError)

def test_one_name_in_two_unicode_forms(tmp_path):
    task = lay(tmp_path/"task", [f"input/{NFC}.png", f"input/{NFD}.png", f"target/{NFC}.png"])
    if len(list((task/"input").iterdir())) < 2: pytest.skip("this file system knows one form only")
    refused(lambda: load_pairs(task), "same stem")
    refused(lambda: Pairs(*[np.zeros((2, 4, 4, 3), np.uint8)]*2, [NFC, NFD]), "more than once")

def test_capitals(tmp_path):
    refused(lambda: load_pairs(lay(tmp_path/"task", ["input/Rose.png", "target/rose.png"])), "Rose.png", "rose.png has other capitals")

# Layouts
@pytest.mark.parametrize("a,b", [("input", "target"), ("control", "target"), ("before", "after"), ("start", "end"), ("Input", "Target")])
@pytest.mark.parametrize("form", ["{word}/{name}.png", "{name}_{word}.png", "{name}-{word}.png"])
def test_layouts(tmp_path, a, b, form):
    task = lay(tmp_path/"task", [form.format(name=name, word=word) for word in (a, b) for name in ("x", "y z", "n_1")])
    pairs = silent(lambda: load_pairs(task))
    assert pairs.names == ["n_1", "x", "y z"]
    assert np.array_equal(pairs.inputs[1], Image.open(task/form.format(name="x", word=a))) and np.array_equal(pairs.targets[1], Image.open(task/form.format(name="x", word=b)))
    with zipfile.ZipFile(tmp_path/"t.zip", "w") as z:
        for f in sorted(task.rglob("*.png")): z.write(f, "task/" + f.relative_to(task).as_posix())
    assert np.array_equal(load_pairs(tmp_path/"t.zip").targets, pairs.targets)

def test_no_layout_fits(tmp_path):
    task = lay(tmp_path/"task", ["left/a.png", "right/a.png", "c.png"])
    refused(lambda: load_pairs(task), "holds no pairs", "found c.png, left/, right/", "control/ and target/", "NAME_input", error=FileNotFoundError)
    (tmp_path/"empty").mkdir()
    refused(lambda: load_pairs(tmp_path/"empty"), "found nothing", error=FileNotFoundError)

def test_half_a_layout(tmp_path):
    refused(lambda: load_pairs(lay(tmp_path/"task", ["before/a.png", "answers/a.png"])), "no folder after/", "found answers/, before/", error=FileNotFoundError)

def test_lone_names(tmp_path):
    task = lay(tmp_path/"task", ["a_start.png", "a_end.png", "b_start.png"])
    refused(lambda: load_pairs(task), "b_start.png", "_end in place of _start")

def test_other_names_are_named(tmp_path):
    task = lay(tmp_path/"task", ["a_start.png", "a_end.png", "b.png"])
    assert warned(lambda: load_pairs(task), "not read: b.png", "_start or _end").names == ["a"]

def test_one_name_with_two_separators(tmp_path):
    refused(lambda: load_pairs(lay(tmp_path/"task", ["a_start.png", "a-start.png", "a_end.png"])), "a_start.png", "a-start.png")

# Arrays
x = np.zeros((3, 8, 8, 3), np.uint8)
@pytest.mark.parametrize("bad,line", [
    (x[0].transpose(2, 0, 1), "np.moveaxis(x, 0, -1)[None]"), (x[..., :1], "np.repeat(x, 3, -1)"), (x[0, ..., :1], "np.repeat(x, 3, -1)[None]"),
    (x[..., :2], "np.repeat(x[..., :1], 3, -1)"), (x[..., 0], "np.stack([x]*3, -1)"), (x[0, ..., 0], "np.stack([x]*3, -1)[None]"), (x[0], "x[None]"),
    (x.transpose(0, 3, 1, 2), "np.moveaxis(x, -3, -1)"), (x[..., :1].transpose(0, 3, 1, 2), "np.moveaxis(np.repeat(x, 3, -3), -3, -1)"),
    (np.zeros((2, 8, 8, 4), np.uint8), "x[..., :3]"), (np.zeros((2, 4, 8, 8), np.uint8), "np.moveaxis(x[..., :3, :, :], -3, -1)"), (np.stack([x]*5, 1), "x[:, -1]"),
    (x > 0, "x.astype('uint8')*255"), (x.astype(np.uint16) + 60000, "(x/257).round().astype('uint8')")])
def test_advice_works(bad, line):
    "The line that the message names makes an array that is taken"
    refused(lambda: as_pictures(bad), f"`{line}`")
    assert as_pictures(eval(line, dict(np=np, x=bad))).shape[1:] == (8, 8, 3)

@pytest.mark.parametrize("bad,line", [(x[0].transpose(2, 0, 1), "np.moveaxis(x, -3, -1)"), (x[0, ..., :1], "np.repeat(x, 3, -1)"), (x[0, ..., 0], "np.stack([x]*3, -1)"), (x, "x[-1]")])
def test_advice_in_a_list(bad, line):
    refused(lambda: as_pictures([x[0], bad]), "pictures[1]", f"`{line}`")
    assert as_pictures([x[0], eval(line, dict(np=np, x=bad))]).shape == (2, 8, 8, 3)

def test_pil_pictures_in_a_list_are_numbered():
    refused(lambda: Pairs([x[0], Image.new("F", (8, 8))], x[:2]), "inputs[1]", "floating point")
    warned(lambda: as_pictures([x[0], Image.new("L", (8, 8), 3)], "targets"), "targets[1]", "3 of 255")

def test_pairs_are_copies():
    mine = np.zeros((2, 4, 4, 3), np.uint8)
    pairs = Pairs(mine, mine)
    mine[:] = 9
    pairs.inputs[0] = 7
    assert pairs.inputs[1].max() == pairs.targets.max() == 0 and mine.min() == 9
    first = pairs[:1]
    first.inputs[:] = 5
    assert pairs.inputs[0].max() == 7
