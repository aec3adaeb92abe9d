"The command line: what each command does, what it prints where, and what it refuses."
import json, os, re, shlex, subprocess, sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gen2gen as g
from conftest import ROOT
from gen2gen.cli import app
from gen2gen.tiny import random_transformer

COMMANDS = "finetune", "predict", "score", "check", "tasks", "vdms", "arc", "conceptarc"

def cli(line, **kw): return CliRunner().invoke(app, shlex.split(str(line)), prog_name="gen2gen", **kw)

def ok(line):
    r = cli(line)
    assert r.exit_code == 0, f"{line}\n{r.output}\n{r.exception!r}"
    return r

def refused(line, *words):
    "Exit status 2, nothing on standard output, one line on standard error that holds the words"
    r = cli(line)
    assert (r.exit_code, r.stdout) == (2, ""), f"{line}\n{r.output}\n{r.exception!r}"
    assert r.stderr.count("\n") == 1 and "Traceback" not in r.stderr, r.stderr
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

# score
def test_score_json_and_csv(here):
    told = json.loads(ok("score adapter task --vdm vdm --metrics psnr,delta_e --csv s.csv --json --quiet").stdout)
    assert list(told) == ["adapter", "copy", "images"] and list(told["copy"]) == ["psnr", "delta_e"] and len(told["images"]) == 6
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
    from gen2gen.finetune import pairs_hash
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

def test_a_tasks_pictures(here):
    "Photographs by name, and a folder of pictures"
    ok("finetune vflip --vdm vdm --n 1 --source china,coffee --size 16 --steps 1 --out v1 --quiet")
    ok("finetune vflip --vdm vdm --n 2 --source new --size 16 --steps 1 --out v2 --quiet")

# What is refused
@pytest.mark.parametrize("line, words", [
    ("finetune nowhere --out x", ["nowhere", "no task of that name"]), ("finetune no/where --out x", ["no/where", "no such folder"]), ("finetune vflip --heldout 0.5 --out x", ["--heldout vflip"]),
    ("finetune vflip --out x --source coins", ["'coins'", "astronaut"]), ("finetune vflip --out x --size 16x24", ["16x24", "square"]), ("finetune new --out x", ["no folder input/"]), ("finetune task --out x --vdm huge", ["unknown VDM 'huge'", "tiny"]),
    ("finetune task --vdm vdm --out x --n 7", ["n=7", "there are 6 pairs"]), ("finetune task --vdm vdm --out x --n 0", ["n=0"]), ("finetune task --vdm vdm --out x --n 5 --heldout 0.5", ["n=5", "there are 3 pairs"]),
    ("finetune task --vdm vdm --out x --heldout 1.5", ["--heldout 1.5", "share"]), ("finetune task --vdm vdm --out x --heldout nowhere", ["nowhere"]),
    ("finetune task --vdm vdm --out x --transition fade", ["'fade'", "convex"]), ("finetune task --vdm vdm --out x --steps 0", ["steps=0"]), ("finetune task --vdm vdm --out x --lr nan", ["lr=nan"]),
    ("finetune task --vdm vdm --out x --frames 99", ["99 frames", "nearest"]), ("finetune task --vdm vdm --out x --size 17", ["17×17", "nearest"]), ("finetune task --vdm vdm --out x --size big", ["--size big"]),
    ("finetune task --vdm vdm --out x --size 16 --resize zoom", ["'zoom'", "pad"]), ("finetune task --vdm vdm --out x --device warp", ["--device warp"]),
    ("predict nowhere new --out x", ["nowhere", "no such folder"]), ("predict task new --out x", ["task ", "not an adapter folder"]), ("predict adapter new/dog.png --vdm vdm --out x", ["new/dog.png", "no such file"]),
    ("predict adapter task --vdm vdm --out x", ["task", "no pictures"]), ("predict adapter new new/cat.png --vdm vdm --out x", ["cat.png", "two folders"]), ("predict adapter new --vdm vdm --out x --samples 0", ["samples=0"]),
    ("predict adapter new --out x", ["revision", "tiny"]), ("score adapter task --vdm vdm --metrics fid", ["'fid'", "psnr"]), ("score adapter nowhere --vdm vdm", ["nowhere"])])
def test_users_errors(here, line, words):
    refused(line + " --quiet", f"gen2gen {line.split()[0]}: ", *words)
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
    from gen2gen.finetune import default_settings
    source = (ROOT/'gen2gen'/'cli.py').read_text()
    told = {k: float(re.search(rf'    {k}:\S+=None, # .*default: ([\d.]+)[,\n]', source)[1]) for k in ('steps', 'batch_size', 'lr', 'rank')}
    assert told == default_settings(9) and 'from 10 pairs on 200' in source and default_settings(10)['steps'] == 200
