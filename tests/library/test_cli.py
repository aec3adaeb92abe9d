"The command line: what each command does, what it prints where, and what it refuses."
import json, os, re, shlex, shutil, subprocess, sys, warnings

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gen2gen as g
from conftest import ROOT, eventually
from gen2gen.cli import app, spoken
from gen2gen.tiny import random_transformer

COMMANDS = "finetune", "predict", "score", "info", "check", "tasks", "vdms", "arc", "conceptarc"

def cli(line, **kw): return CliRunner().invoke(app, shlex.split(str(line)), prog_name="gen2gen", **kw)

def ok(line):
    r = cli(line)
    assert r.exit_code == 0, f"{line}\n{r.output}\n{r.exception!r}"
    return r

def refused(line, *words):
    "Exit status 2, nothing on standard output, one line on standard error that holds the words, after what was left out"
    r = cli(line)
    assert (r.exit_code, r.stdout) == (2, ""), f"{line}\n{r.output}\n{r.exception!r}"
    said = r.stderr.splitlines()
    assert all(line.startswith("gen2gen ") for line in said) and all(": not read: " in line for line in said[:-1]), r.stderr
    for word in words: assert word in r.stderr, f"{word!r} is missing in: {r.stderr}"

def fresh(*args, **env):
    "A new process of the command line"
    return subprocess.run([sys.executable, "-c", "from gen2gen.cli import main; main()", *args], capture_output=True, text=True, env=os.environ | env)

@pytest.fixture(scope="module")
def here(tmp_path_factory):
    "A folder with a small VDM, six pairs, an adapter and two new pictures; the tests run inside it"
    d, rng = tmp_path_factory.mktemp("cli"), np.random.default_rng(0)
    random_transformer(0, num_layers=1).save_pretrained(d/"vdm")
    x = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    g.Pairs(x[:6], 255-x[:6], list("abcdef")).save(d/"task")
    (d/"new").mkdir()
    for name, o in zip(("cat", "cup"), x[6:]): Image.fromarray(o).save(d/"new"/f"{name}.png")
    with pytest.MonkeyPatch.context() as m:
        m.chdir(d)
        ok("finetune task --vdm vdm --out adapter --steps 2 --quiet")
    return d

@pytest.fixture(autouse=True)
def inside(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.setenv("GEN2GEN_DEBUG", "")

# Help and version
@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(command):
    text = ok(f"{command} --help").stdout
    examples = re.findall(rf"^ *gen2gen ({command}\b.*)$", text.split("Examples:")[1], re.M)
    assert examples
    for e in examples:
        unknown = [o for o in shlex.split(e.split(" | ")[0]) if o.startswith("--") and o not in text]
        assert not unknown, f"{e}: {unknown}"

@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command):
    for line in ok(f"{command} --help").stdout.split("Options:")[1].split("Examples:")[0].splitlines():
        if re.match(r"  -", line): assert re.match(r"  -\S.*?  +\S", line) or line.rstrip().endswith(">"), line

def test_no_arguments_show_the_help(): assert "finetune" in cli("").output
def test_version(): assert ok("--version").stdout == f"gen2gen {g.__version__}\n"

@pytest.mark.parametrize("args", ["--help", "finetune --help", "--version"])
def test_help_is_quick(args):
    code = f"import sys\nfrom gen2gen.cli import app\ntry: app({args.split()!r})\nexcept SystemExit: pass\nprint([m for m in ('torch', 'diffusers', 'pandas', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.endswith("[]\n")

# finetune
def test_finetune_json(here):
    r = ok("finetune task --vdm vdm --out j --steps 2 --n 3 --heldout 0.34 --seed 7 --json")
    told = json.loads(r.stdout)
    assert (told["n"], told["heldout_n"], told["steps"], told["out"]) == (3, 2, 2, "j") and told["copy_score"] > 0
    assert "2/2" in r.stderr, "the progress bar is on standard error"
    assert sorted(p.name for p in (here/"j").iterdir()) == ["gen2gen.json", "pytorch_lora_weights.safetensors"]

def test_finetune_is_the_library_call(here):
    "Same pairs, same seed: same bits"
    ok("finetune task --vdm vdm --out lib --steps 2 --transition convex --frames 4 --rank 2 --quiet")
    want = g.finetune(g.load_pairs("task"), "vdm", "convex", n_frames=4, steps=2, rank=2, progress=False)
    got = g.load_adapter("lib", "vdm")
    assert all((got.state[k] == v).all() for k, v in want.state.items()) and got.state.keys() == want.state.keys()

def test_finetune_heldout_folder(): assert json.loads(ok("finetune task --vdm vdm --out h --steps 1 --heldout task --json --quiet").stdout)["heldout_n"] == 6

def test_finetune_pictures_of_any_size(here):
    x = np.random.default_rng(1).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    for side in ("input", "target"):
        (here/"any"/side).mkdir(parents=True)
        for i, y in enumerate((x, x[:20, :12])): Image.fromarray(y).save(here/"any"/side/f"{i}.jpg")
    refused("finetune any --vdm vdm --out any-out --quiet", "any/input/1.jpg is 20×12", "--size and --resize")
    ok("finetune any --vdm vdm --out any-out --steps 1 --size 16x12 --resize crop --quiet")
    assert g.load_adapter("any-out", "vdm").settings["size"] == [16, 12]
    ok("finetune any --vdm vdm --out any-pad --steps 1 --size 16 --quiet")

def test_finetune_keeps_what_is_there(here):
    before = {p: p.read_bytes() for p in (here/"adapter").iterdir()}
    refused("finetune task --vdm vdm --out adapter --steps 2 --quiet", "adapter/gen2gen.json exists already", "--resume", "--overwrite")
    assert {p: p.read_bytes() for p in (here/"adapter").iterdir()} == before
    ok("finetune task --vdm vdm --out twice --steps 1 --quiet")
    ok("finetune task --vdm vdm --out twice --steps 2 --overwrite --quiet")
    assert g.load_adapter("twice", "vdm").settings["steps"] == 2

@pytest.mark.parametrize("change", ["--steps 3", "--steps 2 --lr 0.5", "--steps 2 --seed 1", "--steps 2 --rank 2", "--steps 2 --n 3"])
def test_resume_does_not_replace_a_finished_adapter(here, change):
    before = {p: p.read_bytes() for p in (here/"adapter").iterdir()}
    refused(f"finetune task --vdm vdm --out adapter --resume --quiet {change}", "finished adapter of another run", "--overwrite")
    assert {p: p.read_bytes() for p in (here/"adapter").iterdir()} == before
    ok("finetune task --vdm vdm --out adapter --steps 2 --resume --quiet")

def test_augment_method_and_preset(here):
    ok("finetune task --vdm vdm --out m1 --steps 1 --augment flips,colours,crops=0.8 --quiet")
    assert g.load_adapter("m1", "vdm").settings["augment"] == dict(flips=True, permute_colours=True, crops=.8)
    ok("finetune task --vdm vdm --out m2 --steps 1 --method full --quiet")
    assert "method       full" in ok("info m2").stdout
    refused("finetune task --vdm vdm --out m3 --preset paper --quiet", "the papers state no settings")
    refused("finetune task --vdm vdm --out m3 --augment zoom --quiet", "--augment zoom", "flips")
    refused("finetune task --vdm vdm --out m3 --method magic --quiet", "method='magic'", "'full'")

def test_an_adapter_never_replaces_a_model(here):
    before = {p: p.read_bytes() for p in (here/"vdm").iterdir()}
    refused("finetune task --vdm vdm --out vdm --method full --steps 1 --quiet", "folder of a model")
    assert {p: p.read_bytes() for p in (here/"vdm").iterdir()} == before

def test_huge_sizes_are_refused_before_any_picture_is_made(here):
    for line in ("finetune task --vdm vdm --out x", "finetune vflip --vdm vdm --out x", "predict adapter new --vdm vdm --out x", "score adapter task --vdm vdm", "score adapter vflip --vdm vdm"):
        refused(f"{line} --size 100000 --quiet", "100000×100000", "nearest", "--size")
    assert not (here/"x").exists()

# predict
def test_predict_files_and_folders(here):
    r = ok("predict adapter new/cat.png task/input --vdm vdm --out p1 --json --quiet")
    assert json.loads(r.stdout)["files"] == [f"p1/{n}.png" for n in ("cat", *"abcdef")]
    assert sorted(p.name for p in (here/"p1").iterdir()) == sorted(f"{n}.png" for n in ("cat", *"abcdef"))

def test_predict_is_the_library_call():
    ok("predict adapter new --vdm vdm --out p2 --seed 3 --steps 2 --videos --quiet")
    want = g.load_adapter("adapter", "vdm").predict(g.load_images("new"), seed=3, steps=2)
    assert (g.load_images(["p2/cat.png", "p2/cup.png"]) == want.images).all()
    assert os.path.getsize("p2/cat.mp4") > 0

def test_predict_keeps_what_is_there(here):
    ok("predict adapter new/cat.png --vdm vdm --out p3 --quiet")
    before = (here/"p3/cat.png").read_bytes()
    refused("predict adapter new --vdm vdm --out p3 --seed 5 --quiet", "p3/cat.png exists already", "--overwrite")
    assert (here/"p3/cat.png").read_bytes() == before and not (here/"p3/cup.png").exists()
    ok("predict adapter new --vdm vdm --out p3 --seed 5 --overwrite --quiet")
    assert (here/"p3/cat.png").read_bytes() != before

def test_predict_samples(here):
    ok("predict adapter new/cat.png --vdm vdm --out p4 --samples 2 --quiet")
    assert sorted(p.name for p in (here/"p4").iterdir()) == ["cat-1.png", "cat-2.png", "cat.png"]

@pytest.mark.parametrize("out", ["shots", "./shots", "shots/", "shots/../shots", "link", "{here}/shots"])
@pytest.mark.parametrize("pictures", ["shots", "link", "shots/cat.png"])
def test_an_output_is_never_an_input(here, out, pictures):
    if not (here/"shots").exists():
        shutil.copytree("new", "shots")
        os.symlink("shots", "link")
    before = {p.name: p.read_bytes() for p in (here/"shots").iterdir()}
    for flag in ("", "--overwrite"):
        r = cli(f"predict adapter {pictures} --vdm vdm --out {out.format(here=here)} {flag} --quiet")
        assert r.exit_code == 2 and "input" in r.stderr and "--overwrite" not in r.stderr, r.output
    assert {p.name: p.read_bytes() for p in (here/"shots").iterdir()} == before

def test_samples_are_answers_too(here):
    "Neither replaced unasked nor left behind as if they were of these answers"
    (here/"s").mkdir()
    (here/"s/cat-1.png").write_text("mine")
    refused("predict adapter new/cat.png --vdm vdm --out s --samples 2 --quiet", "s/cat-1.png exists already", "--overwrite")
    assert (here/"s/cat-1.png").read_text() == "mine" and len(list((here/"s").iterdir())) == 1
    ok("predict adapter new/cat.png --vdm vdm --out s --samples 3 --videos --overwrite --quiet")
    refused("predict adapter new/cat.png --vdm vdm --out s --samples 2 --videos --overwrite --quiet", "s/cat-3.png", "earlier run")
    refused("predict adapter new/cat.png --vdm vdm --out s --samples 3 --overwrite --quiet", "s/cat.mp4", "earlier run")
    shutil.copytree("new", "pile")
    shutil.copy("new/cat.png", "pile/cat-1.png")
    refused("predict adapter pile --vdm vdm --out pile-out --samples 2 --quiet", "cat-1.png", "rename")

def test_predict_takes_pictures_of_any_size(here):
    "At the size of training, by the way of training; and back again"
    x = np.random.default_rng(1).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    (here/"big").mkdir()
    for name, y in (("a", x), ("b", x[:20])): Image.fromarray(y).save(here/"big"/f"{name}.png")
    r = ok("predict adapter big/a.png big/b.png --vdm vdm --out g1 --quiet")
    assert r.stderr == "pictures of 40×24 (and 1 other sizes) are padded to 16×16 (height×width)\n"
    assert g.load_images("g1").shape == (2, 16, 16, 3)
    assert "stretched to 16×16" in json.loads(ok("predict adapter big --vdm vdm --out g2 --resize stretch --json --quiet").stdout)["fitted"]
    for resize in ("pad", "crop", "stretch"):
        ok(f"predict adapter big --vdm vdm --out g3 --keep-size --resize {resize} --samples 2 --overwrite --quiet")
        assert [Image.open(here/"g3"/f"{o}.png").size for o in ("a", "b", "a-2", "b-2")] == [(24, 40), (24, 20)]*2
    shutil.make_archive("big", "zip", "big")
    ok("predict adapter big.zip --vdm vdm --out g4 --quiet")
    assert all((here/"g1"/f).read_bytes() == (here/"g4"/f).read_bytes() for f in ("a.png", "b.png"))

def test_the_way_of_training_is_the_way_of_predicting(here):
    ok("finetune task --vdm vdm --out cropped --steps 1 --size 16 --resize crop --quiet")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("wide.png")
    assert "20×30 are cropped to 16×16" in ok("predict cropped wide.png --vdm vdm --out w1 --quiet").stderr
    told = json.loads(ok("score cropped task --vdm vdm --json --quiet").stdout)
    assert told["resize"] == "crop"

def test_equal_pictures_get_equal_answers(here):
    (here/"twins").mkdir()
    for name in "xyz": shutil.copy("new/cat.png", here/"twins"/f"{name}.png")
    ok("predict adapter new/cup.png twins --vdm vdm --out t1 --quiet")
    ok("predict adapter twins --vdm vdm --out t2 --quiet")
    answers = g.load_images([*(f"t1/{o}.png" for o in "xyz"), *(f"t2/{o}.png" for o in "xyz")]).astype(int)
    assert abs(answers-answers[0]).max() <= 1

def test_two_processes_in_one_folder(here):
    "The second is refused by the name of the lock; a process that was killed leaves none that blocks"
    from gen2gen.files import LOCK
    line = "finetune task --vdm vdm --out two --steps 100000 --quiet"
    p = subprocess.Popen([sys.executable, "-m", "gen2gen", *line.split()])
    try:
        eventually(lambda: (here/"two"/LOCK).exists() or p.poll() is not None)
        refused(line.replace("100000", "1"), "two is in use", LOCK)
        assert p.poll() is None
    finally:
        p.kill()
        p.wait()
    assert (here/"two"/LOCK).exists()
    ok(line.replace("100000", "1") + " --overwrite")
    assert sorted(o.name for o in (here/"two").iterdir()) == ["gen2gen.json", "pytorch_lora_weights.safetensors"]

def test_two_predictions_into_one_folder(here):
    from gen2gen.files import LOCK, alone_in
    with alone_in("locked"):
        refused("predict adapter new --vdm vdm --out locked --quiet", "locked is in use", LOCK)
        refused("finetune task --vdm vdm --out locked --steps 1 --overwrite --quiet", "locked is in use", LOCK)
    ok("predict adapter new --vdm vdm --out locked --quiet")

# score
def test_score_json_and_csv(here):
    told = json.loads(ok("score adapter task --vdm vdm --metrics psnr,delta_e --csv s.csv --json --quiet").stdout)
    assert list(told) == ["adapter", "copy", "lead", "images", "size", "resize"] and list(told["copy"]) == ["psnr", "delta_e"] and len(told["images"]) == 6
    pairs = g.load_pairs("task")
    assert np.isclose(told["copy"]["psnr"]["mean"], g.score(pairs.inputs, pairs).psnr.mean())
    assert told["adapter"]["psnr"]["low"] <= told["adapter"]["psnr"]["mean"] <= told["adapter"]["psnr"]["high"]
    assert (here/"s.csv").read_text().startswith("name,psnr,delta_e\n") and json.loads((here/"s.json").read_text())["settings"]["adapter"]["steps"] == 2
    refused("score adapter task --vdm vdm --csv s.csv --quiet", "s.csv exists already")

def test_score_of_one_pair_is_valid_json(here):
    g.load_pairs("task")[0].save(here/"one")
    text = ok("score adapter one --vdm vdm --json --quiet").stdout
    assert json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))["adapter"]["psnr"]["low"] is None

def test_score_table(): assert re.search(r"psnr +[\d.]+ +\[[\d.]+, [\d.]+\] +[\d.]+", ok("score adapter task --vdm vdm --quiet").stdout)

def test_score_warns_of_an_adapter_that_does_nothing(here):
    "Scored against the inputs themselves nothing is better than copying; an adapter that is surely ahead is not doubted"
    x = g.load_pairs("task").inputs
    g.Pairs(x, x).save(here/"same")
    r = ok("score adapter same --vdm vdm --quiet")
    assert r.stderr.startswith("gen2gen score: the adapter is not surely better than copying the input: ") and "95 % interval" in r.stderr and r.stderr.count("\n") == 1
    x = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    a = g.load_adapter("adapter", "vdm")
    g.Pairs(x, a.predict(x, progress=False).images, list("abcdef")).save(here/"solved")
    assert ok("score adapter solved --vdm vdm --quiet").stderr == ""
    assert json.loads(ok("score adapter solved --vdm vdm --json --quiet").stdout)["lead"]["psnr"]["sure"] is True

def test_score_takes_pictures_of_any_size(here):
    x = np.random.default_rng(1).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    for side in ("input", "target"):
        (here/"sizes"/side).mkdir(parents=True)
        for i, y in enumerate((x, x[:20, :12])): Image.fromarray(y).save(here/"sizes"/side/f"{i}.png")
    told = json.loads(ok("score adapter sizes --vdm vdm --json --quiet").stdout)
    assert (told["size"], told["resize"], len(told["images"])) == ([16, 16], "pad", 2)
    assert "taken at 16×16" in ok("score adapter sizes --vdm vdm --quiet").stdout
    assert json.loads(ok("score adapter sizes --vdm vdm --size 24x16 --resize stretch --json --quiet").stdout)["size"] == [24, 16]
    shutil.make_archive("sizes", "zip", "sizes")
    assert json.loads(ok("score adapter sizes.zip --vdm vdm --json --quiet").stdout)["images"] == told["images"]

def test_score_tables_replace_nothing(here):
    "The .json beside the table is asked about too, and is never the adapter's own"
    (here/"t.json").write_text("mine")
    refused("score adapter task --vdm vdm --csv t.csv --quiet", "t.json exists already", "--overwrite")
    before = (here/"adapter/gen2gen.json").read_bytes()
    refused("score adapter task --vdm vdm --csv adapter/gen2gen.csv --overwrite --quiet", "adapter/gen2gen.json is an input itself")
    assert (here/"t.json").read_text() == "mine" and (here/"adapter/gen2gen.json").read_bytes() == before

# info
def test_info(here):
    text = ok("info adapter").stdout
    for word in ("6, pixels with the hash", "rank 16", "16×16", "2 of 2", "seed 42"): assert word in text
    assert json.loads(ok("info adapter --json").stdout)["settings"]["steps"] == 2
    refused("info nowhere", "nowhere", "no such folder")
    refused("info task", "not an adapter folder")

# vdms
def test_vdms():
    assert json.loads(ok("vdms --json").stdout)["tiny"]["licence"] == "Apache-2.0"
    assert "tiny" in ok("vdms").stdout and "licence" in ok("vdms").stdout

# tasks by name
def test_tasks():
    told = json.loads(ok("tasks --json").stdout)
    assert told.keys() == g.TASKS.keys() and told["colorize"] == dict(about=g.TASKS["colorize"].about, metric="psnr", n=10, transition="discrete", split="development", seen=True, kin=["grey"])
    assert len(ok("tasks").stdout.splitlines()) == len(told)

def test_task_by_name(here):
    told = json.loads(ok("finetune pose --vdm vdm --n 2 --heldout pose --size 16 --steps 1 --out pose --json --quiet").stdout)
    assert (told["n"], told["heldout_n"], told["metric"]) == (2, 16, "pck")
    s = g.load_adapter("pose", "vdm").settings
    from gen2gen.train import pairs_hash
    made = g.task("pose").pairs(2, 42, 16)
    assert s["pairs"] in {pairs_hash(made), pairs_hash(made[[1, 0]])}, "the library's pairs, as the library draws them"
    scores = json.loads(ok("score pose pose --vdm vdm --n 3 --json --quiet").stdout)
    assert list(scores["adapter"]) == ["pck"] and scores["adapter"]["pck"]["n"] == 3

@pytest.mark.parametrize("name", g.TASKS)
def test_every_task_by_name(here, name):
    ok(f"finetune {name} --vdm vdm --n 1 --size 16 --steps 1 --out every-{name} --quiet")
    assert list(json.loads(ok(f"score every-{name} {name} --vdm vdm --n 2 --json --quiet").stdout)["adapter"]) == [g.TASKS[name].metric]

def test_a_folder_goes_before_a_task(here):
    g.load_pairs("task")[:2].save(here/"hflip")
    assert json.loads(ok("finetune hflip --vdm vdm --steps 1 --out hflip-a --json --quiet").stdout)["n"] == 2

def test_what_names_a_folder_is_a_folder(here):
    "With whatever in it, and with a slash even if it is not there"
    (here/"vflip").mkdir()
    for spelled in ("vflip", "vflip/", "./vflip"): refused(f"finetune {spelled} --vdm vdm --steps 1 --out f1 --quiet", "vflip")
    (here/"vflip").rmdir()
    for line in ("finetune mask/ --vdm vdm --out f1", "finetune ./mask --vdm vdm --out f1", "finetune task --heldout mask/ --vdm vdm --out f1", "score adapter mask/ --vdm vdm"):
        refused(f"{line} --quiet", "mask", "no such folder")
    refused("finetune mask --source new2/ --vdm vdm --out f1 --quiet", "new2/", "no such folder")
    refused("finetune task --vdm tiny/ --out f1 --quiet", "tiny/", "no such folder")
    g.load_pairs("task")[:2].save(here/"0.25")
    assert json.loads(ok("finetune task --vdm vdm --heldout 0.25 --steps 1 --out f2 --json --quiet").stdout)["heldout_n"] == 2
    assert not (here/"f1").exists()

def test_an_adapter_beside_its_task(here):
    "An adapter that was named like its task does not stand in for it"
    ok("finetune rot90 --vdm vdm --n 1 --size 16 --steps 1 --out rot90 --quiet")
    ok("score rot90 rot90 --vdm vdm --n 2 --quiet")

def test_a_tasks_pictures(here):
    "Photographs by name, and a folder of pictures"
    ok("finetune vflip --vdm vdm --n 1 --source china,coffee --size 16 --steps 1 --out v1 --quiet")
    ok("finetune vflip --vdm vdm --n 2 --source new --size 16 --steps 1 --out v2 --quiet")

# What is refused
@pytest.mark.parametrize("line, words", [
    ("finetune nowhere --out x", ["nowhere", "no task of that name"]), ("finetune no/where --out x", ["no/where", "no such folder"]), ("finetune vflip --heldout 0.5 --out x", ["--heldout vflip"]),
    ("finetune vflip --out x --source coins", ["'coins'", "astronaut"]), ("finetune vflip --out x --size 32x64", ["32x64", "square"]), ("finetune new --out x", ["no folder input/"]), ("finetune task --out x --vdm huge", ["unknown VDM 'huge'", "tiny"]),
    ("finetune task --vdm vdm --out x --n 7", ["n=7", "there are 6 pairs"]), ("finetune task --vdm vdm --out x --n 0", ["n=0"]), ("finetune task --vdm vdm --out x --n 5 --heldout 0.5", ["n=5", "there are 3 pairs"]),
    ("finetune task --vdm vdm --out x --heldout 1.5", ["--heldout 1.5", "share"]), ("finetune task --vdm vdm --out x --heldout nowhere", ["nowhere"]),
    ("finetune task --vdm vdm --out x --transition fade", ["'fade'", "convex"]), ("finetune task --vdm vdm --out x --steps 0", ["steps=0"]), ("finetune task --vdm vdm --out x --lr nan", ["lr=nan"]),
    ("finetune task --vdm vdm --out x --frames 99", ["99 frames", "nearest"]), ("finetune task --vdm vdm --out x --size 17", ["17×17", "nearest"]), ("finetune task --vdm vdm --out x --size big", ["--size big"]),
    ("finetune task --vdm vdm --out x --size 16 --resize zoom", ["'zoom'", "pad"]), ("finetune task --vdm vdm --out x --device warp", ["--device warp"]),
    ("finetune task --vdm vdm --out x --batch-size 0", ["batch_size=0", "at least 1"]), ("finetune task --vdm vdm --out x --batch-size -3", ["batch_size=-3"]), ("finetune task --vdm vdm --out x --steps -1", ["steps=-1"]),
    ("finetune task --vdm vdm --out x --seed -1", ["seed=-1"]), ("finetune vflip --vdm vdm --out x --seed -1", ["seed=-1"]), ("finetune task --vdm vdm --out x --seed 123456789012345678901234", ["seed=123456789012345678901234"]),
    ("finetune task --vdm vdm --out x --lr inf --steps 1", ["lr=inf"]), ("finetune task --vdm vdm --out x --lr 1e39 --steps 1", ["step 1", "lower lr"]), ("finetune task --vdm vdm --out x --heldout 0.95", ["--heldout 0.95 of 6 pairs", "none to train on"]),
    ("finetune task --vdm vdm --out x --source photos", ["--source photos", "task"]), ("score adapter task --vdm vdm --source photos", ["--source photos"]), ("finetune task --vdm vdm --out x --resume --overwrite", ["--resume", "--overwrite", "only one"]),
    ("predict adapter new --vdm vdm --out x --steps 0", ["steps=0"]), ("predict adapter new --vdm vdm --out x --seed -1", ["seed=-1"]), ("predict adapter new --vdm vdm --out x --batch-size 0", ["batch_size=0"]), ("score adapter task --vdm vdm --steps 0", ["steps=0"]),
    ("score adapter vflip --vdm vdm --n 0", ["n=0"]), ("arc --out x --samples 0", ["samples=0"]), ("arc --out x --tokens -1", ["tokens=-1"]), ("arc --out x --steps 5", ["no setting 'steps'"]), ("arc --out x --workers 0", ["workers=0"]),
    ("finetune task --vdm wan2.2-ti2v-5b --out x", ["--download"]),
    ("predict nowhere new --out x", ["nowhere", "no such folder"]), ("predict task new --out x", ["task ", "not an adapter folder"]), ("predict adapter new/dog.png --vdm vdm --out x", ["new/dog.png", "no such file"]),
    ("predict adapter task --vdm vdm --out x", ["task", "no pictures"]), ("predict adapter new new/cat.png --vdm vdm --out x", ["cat.png", "two folders"]), ("predict adapter new --vdm vdm --out x --samples 0", ["samples=0"]),
    ("predict adapter new --out x", ["revision", "tiny"]), ("score adapter task --vdm vdm --metrics fid", ["'fid'", "psnr"]), ("score adapter nowhere --vdm vdm", ["nowhere"])])
def test_users_errors(here, line, words):
    refused(line + " --quiet", f"gen2gen {line.split()[0]}: ", *words)
    if "batch" in line: assert "--size" not in cli(line + " --quiet").stderr
    if "lr 1e39" in line: shutil.rmtree("x")  # the state of an unfinished run is kept
    assert not (here/"x").exists(), "nothing is left behind"

@pytest.mark.parametrize("line", ["finetune", "finetune task", "finetune task --out x --steps many", "predict adapter --out x", "score adapter", "fly", "vdms --loud"])
def test_usage_errors(line):
    r = cli(line)
    assert r.exit_code == 2 and r.stdout == "" and "Traceback" not in r.stderr

def test_debug_shows_the_traceback():
    for r in (fresh("--debug", "finetune", "nowhere", "--out", "x"), fresh("finetune", "nowhere", "--out", "x", GEN2GEN_DEBUG="1")):
        assert r.returncode == 1 and "Traceback" in r.stderr and "nowhere" in r.stderr

def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr("gen2gen.cli._split", lambda *args: 1/0)
    assert isinstance(cli("finetune task --out x").exception, ZeroDivisionError)

def test_real_process(here):
    r = fresh("finetune", "nowhere", "--out", "x")
    assert (r.returncode, r.stdout) == (2, "") and r.stderr.startswith("gen2gen finetune: nowhere") and r.stderr.count("\n") == 1

def test_help_tells_the_defaults():
    "What --help says of steps, batch, rate and rank is what finetune takes"
    from gen2gen.train import default_settings
    source = (ROOT/'gen2gen'/'cli.py').read_text()
    told = {k: float(re.search(rf'    {k}: \S+=None, # .*default: ([\d.]+)[,\n]', source)[1]) for k in ('steps', 'batch_size', 'lr', 'rank')}
    assert told == default_settings(9) and 'from 10 pairs on 200' in source and default_settings(10)['steps'] == 200

def test_help_tells_the_defaults_of_tiny_arc():
    "So do gen2gen arc and gen2gen conceptarc"
    from gen2gen.arc_learn import LEARN
    source = (ROOT/'gen2gen'/'cli.py').read_text()
    for k in ('samples', 'tokens'):
        told = re.findall(rf'    {k}: \S+=None, # .*tiny-arc.*default: (\d+)|    {k}: \S+=None, # .*vote; default: (\d+)', source)
        assert told and all(int(a or b) == LEARN[k] for a, b in told), k

# Terminals and pipes
def test_a_terminal_without_the_signs_of_the_help(here):
    r = fresh("finetune", "--help", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert r.returncode == 0 and "height" in r.stdout and "Traceback" not in r.stderr
    r = fresh("predict", "nowhere→", "new", "--out", "x", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert r.returncode == 2 and r.stderr.startswith("gen2gen predict: nowhere") and "Traceback" not in r.stderr

@pytest.mark.parametrize("args", ["tasks", "vdms", "info adapter", "finetune --help", "score adapter task --vdm vdm --json --quiet"])
def test_a_reader_that_has_seen_enough(here, args):
    read, write = os.pipe()
    os.close(read)
    p = subprocess.run([sys.executable, "-m", "gen2gen", *args.split()], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Broken pipe" not in p.stderr and "Traceback" not in p.stderr and "Exception" not in p.stderr, p.stderr

@pytest.mark.parametrize("args", [["-h"], ["finetune", "-h"], ["info", "--help"]])
def test_help_by_a_short_name_and_as_a_module(args):
    r = subprocess.run([sys.executable, "-m", "gen2gen", *args], capture_output=True, text=True)
    assert r.returncode == 0 and r.stdout.lstrip().startswith("Usage: gen2gen"), r.stdout + r.stderr

# ARC
def puzzle(c, answer=True): return dict(train=[dict(input=[[c, 0]], output=[[0, c]])]*2, test=[dict(input=[[c, 0]]) | (dict(output=[[0, c]]) if answer else {})])
def corpus(folder, **tasks):
    (folder/"corpus/Copy").mkdir(parents=True)
    for name, told in tasks.items(): (folder/f"corpus/Copy/{name}.json").write_text(json.dumps(told))

@pytest.mark.parametrize("secret", [1, 2])
def test_answers_that_are_kept_back(here, tmp_path, secret):
    "Solved and handed in, not scored"
    corpus(tmp_path/"c", One=puzzle(1, False), Two=puzzle(2, secret < 2))
    told = json.loads(ok(f"conceptarc {tmp_path}/c --vdm vdm --steps 2 --samples 1 --out {tmp_path}/run --json --quiet").stdout)
    assert (told["tasks"], sorted(told["unscored"])) == (dict(done=2), ["One", "Two"][:secret]) and bool(told["scores"]) == (secret < 2)
    handed = json.loads((tmp_path/"run/submission.json").read_text())
    assert list(handed) == ["One", "Two"] and (tmp_path/"run/navigator.html").is_file()
    assert "submission.json" in ok(f"conceptarc {tmp_path}/c --vdm vdm --steps 2 --samples 1 --out {tmp_path}/run --resume --quiet").stdout

def test_a_run_is_of_its_puzzles(here, tmp_path):
    "Neither among them, nor gone on with for others of the same names"
    corpus(tmp_path/"c", One=puzzle(1))
    corpus(tmp_path/"other", One=puzzle(3))
    refused(f"conceptarc {tmp_path}/c --vdm vdm --out {tmp_path}/c/corpus/run --quiet", "among the tasks")
    ok(f"conceptarc {tmp_path}/c --vdm vdm --steps 2 --samples 1 --out {tmp_path}/run --quiet")
    refused(f"conceptarc {tmp_path}/other --vdm vdm --steps 2 --samples 1 --out {tmp_path}/run --resume --quiet", "One", "other puzzles")

def test_views_that_are_equal_still_differ_in_noise(here):
    "Without augmentation each sample sees the same picture"
    from gen2gen.arc import Puzzle
    from gen2gen.arc_solve import solve
    grid = np.eye(4, dtype=np.uint8)
    told = solve(g.load_vdm("vdm"), Puzzle("p", "", ((grid, grid),), (grid,)), augment="none", samples=2, steps=1)
    assert (told["video0"][0] != told["video0"][1]).any()

def test_warnings_are_lines_of_the_command(capsys):
    "What is left out is said in the command's own words, not in Python's"
    with spoken("predict"): warnings.warn("more.mp4: not read")
    assert capsys.readouterr().err == "gen2gen predict: more.mp4: not read\n"

# Where nobody says a size
def test_pictures_of_any_size_are_taken_at_the_size_of_the_model(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), dtype=np.uint8)
    g.Pairs(x, 255-x, ["a", "b"]).save(tmp_path/"wide")
    r = ok(f"finetune {tmp_path}/wide --out {tmp_path}/a --steps 1 --batch-size 1 --json")
    assert "64×64" in r.stderr and "--size" in r.stderr
    settings = json.loads((tmp_path/"a"/"gen2gen.json").read_text())["settings"]
    assert (settings["size"], settings["resize"], settings["vdm"]["name"]) == ([64, 64], "pad", "tiny")
    assert "--size" not in ok(f"finetune {tmp_path}/wide --out {tmp_path}/b --steps 1 --batch-size 1 --size 32").stderr
