"What goes wrong on real machines: every fault gives one clear error that names file and remedy, and nothing half-written is left."
import errno, json, os, pickle, re, resource, shlex, shutil, signal, subprocess, sys, zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import gen2gen as g
from conftest import LIMIT
from gen2gen.cli import app
from gen2gen.evaluate import evaluate, few, save_results
from gen2gen.files import LAST, WEIGHTS, atomic_save, whole
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import CHECKPOINT
from gen2gen.vdm import cached_latents

LORA = "pytorch_lora_weights.safetensors"
rng = np.random.default_rng(0)
noise = lambda n: rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)

def refused(fn, *words, error=ValueError):
    with pytest.raises(error) as e: fn()
    for word in words: assert str(word) in str(e.value), f"{word!r} is missing in: {e.value}"

def cli_refuses(line, *words):
    "Exit status 2, one line on standard error that holds the words, nothing on standard output"
    r = CliRunner().invoke(app, shlex.split(f"{line} --quiet"), prog_name="gen2gen", env={"GEN2GEN_DEBUG": ""})
    assert (r.exit_code, r.stdout, r.stderr.count("\n")) == (2, "", 1), f"{line}\n{r.output}\n{r.exception!r}"
    for word in words: assert str(word) in r.stderr, f"{word!r} is missing in: {r.stderr}"

def content(folder):
    "Every file below a folder, hidden ones too, with its bytes"
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}

@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A small VDM on disk and loaded, pairs, an adapter and predictions"
    d = tmp_path_factory.mktemp("made")
    random_transformer(0, num_layers=1).save_pretrained(d/"vdm")
    vdm, pairs = g.load_vdm(d/"vdm", device="cpu"), g.Pairs(x := noise(4), 255-x, list("abcd"))
    pairs.save(d/"task")
    adapter = g.finetune(pairs, vdm, steps=2, progress=False, out=d/"adapter")
    return dict(d=d, vdm=vdm, pairs=pairs, adapter=adapter, out=adapter.predict(pairs, steps=1))

@pytest.fixture
def d(made, tmp_path):
    "A copy to break: vdm/, adapter/ and task/"
    subprocess.run(["cp", "-r", f"{made['d']}/.", tmp_path], check=True)
    return tmp_path

# More pairs than there are
@pytest.mark.parametrize("n", [0, 5, -1])
def test_n_larger_than_the_data(d, made, n):
    refused(lambda: few(made["pairs"], n), f"n={n}", "there are 4 pairs")
    refused(lambda: evaluate(made["pairs"], made["pairs"], ns=(1, n)), f"n={n}")
    cli_refuses(f"finetune {d}/task --vdm {d}/vdm --out {d}/new --n {n}", f"n={n}", "there are 4 pairs")

# The wrong VDM
def test_unknown_vdm(d):
    refused(lambda: g.load_vdm("wan99"), "wan99", "tiny")
    cli_refuses(f"finetune {d}/task --vdm wan99 --out {d}/new", "wan99", "tiny")

def test_folder_that_is_no_vdm(d):
    refused(lambda: g.load_vdm(d/"task"), d/"task", "config.json", error=FileNotFoundError)
    (d/"vdm/config.json").write_text('{"_class_name": "UNet2DModel"}')
    refused(lambda: g.load_vdm(d/"vdm"), d/"vdm", "UNet2DModel")
    cli_refuses(f"finetune {d}/task --vdm {d}/vdm --out {d}/new", d/"vdm", "UNet2DModel")

def test_adapter_of_another_vdm(d, made):
    other = Tiny(random_transformer(1, num_layers=1), revision="another")
    refused(lambda: g.load_adapter(d/"adapter", other), d/"adapter", made["vdm"].revision, "another")
    cli_refuses(f"predict {d}/adapter {d}/task/input --out {d}/new", d/"adapter", made["vdm"].revision, "tiny")

# Damaged files
def cut(p): p.write_bytes(p.read_bytes()[:-100])
def empty(p): p.write_bytes(b"")
def noise_in_header(p): p.write_bytes(b"\xff"*64 + p.read_bytes()[64:])
def huge_header(p): p.write_bytes((1 << 60).to_bytes(8, "little") + p.read_bytes()[8:])
def gone(p): p.unlink()
def text(p): p.write_text("<html>404 Not Found</html>")
DAMAGE = [cut, empty, noise_in_header, huge_header, gone, text]

@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_vdm(d, damage):
    damage(d/"vdm"/WEIGHTS)
    refused(lambda: g.load_vdm(d/"vdm"), d/"vdm"/WEIGHTS, error=(ValueError, FileNotFoundError))
    cli_refuses(f"finetune {d}/task --vdm {d}/vdm --out {d}/new", d/"vdm"/WEIGHTS)

def flip_a_bit(p):
    data = bytearray(p.read_bytes()); data[-5] ^= 1
    p.write_bytes(data)

@pytest.mark.parametrize("damage", [*DAMAGE, flip_a_bit])
def test_damaged_adapter(d, made, damage):
    damage(d/"adapter"/LORA)
    refused(lambda: g.load_adapter(d/"adapter", made["vdm"]), d/"adapter"/LORA, error=(ValueError, FileNotFoundError))
    cli_refuses(f"predict {d}/adapter {d}/task/input --vdm {d}/vdm --out {d}/new", d/"adapter"/LORA)
    assert not (d/"new").exists()

@pytest.mark.parametrize("damage", [cut, empty, gone, text])
def test_damaged_description(d, made, damage):
    damage(d/"adapter"/LAST)
    refused(lambda: g.load_adapter(d/"adapter", made["vdm"]), d/"adapter"/LAST, error=(ValueError, FileNotFoundError))
    cli_refuses(f"score {d}/adapter {d}/task --vdm {d}/vdm", d/"adapter"/LAST)

@pytest.mark.parametrize("damage", [cut, empty, noise_in_header, text])
def test_damaged_checkpoint(d, damage):
    (d/"run").mkdir()
    save_file({"x": torch.zeros(99)}, d/"run"/CHECKPOINT)
    damage(d/"run"/CHECKPOINT)
    cli_refuses(f"finetune {d}/task --vdm {d}/vdm --out {d}/run --resume", d/"run"/CHECKPOINT)

# Pickles
class Trap:
    def __reduce__(self): return os.mkdir, (os.environ["TRAP"],)

@pytest.mark.parametrize("name", [None, "pytorch_model.bin", "model.pt"])
@pytest.mark.parametrize("what", ["vdm", "adapter"])
def test_a_pickle_is_never_opened(d, made, monkeypatch, what, name):
    monkeypatch.setenv("TRAP", str(d/"sprung"))
    weights = d/what/(WEIGHTS if what == "vdm" else LORA)
    weights.unlink()
    (d/what/(name or weights.name)).write_bytes(pickle.dumps(Trap()))
    load = partial(g.load_vdm, d/"vdm") if what == "vdm" else partial(g.load_adapter, d/"adapter", made["vdm"])
    refused(load, d/what, *(["pickle", name] if name else ["not a whole safetensors file"]))
    cli_refuses(f"finetune {d}/task --vdm {d}/vdm --out {d}/new" if what == "vdm" else f"predict {d}/adapter {d}/task/input --vdm {d}/vdm --out {d}/new", d/what)
    assert not (d/"sprung").exists()

# NaN
def test_nan_while_training(d):
    cli_refuses(f"finetune {d}/task --vdm {d}/vdm --out {d}/new --lr 1e38 --steps 9", "step", "train again with a lower lr", "another out", "--resume only repeats")
    assert not (d/"new"/LAST).exists()

def test_nan_in_results():
    refused(lambda: g.bootstrap_ci([1., np.nan]), "NaN")
    from gen2gen.evaluate import crossed_ci
    refused(lambda: crossed_ci([[1., np.nan]]), "NaN or missing")

# Disks. Each writer writes its first version with room, and is then asked for a second one without.
def w_adapter(m, to, version): (m["adapter"] if version == 1 else g.Adapter(m["vdm"], {k: v+1 for k, v in m["adapter"].state.items()}, m["adapter"].settings, m["adapter"].config)).save(to/"adapter")
def w_predictions(m, to, version): (m["out"] if version == 1 else m["adapter"].predict(m["pairs"], steps=1, seed=9)).save(to/"answers", videos=False)
def w_videos(m, to, version): (m["out"] if version == 1 else m["adapter"].predict(m["pairs"][:1], steps=1, seed=9)).save(to/"answers")
def w_mp4(m, to, version): g.save_video(noise(3), to/"video.mp4")
def w_tensors(m, to, version): atomic_save({"x": torch.full((999,), version)}, to/"x.safetensors")
def w_results(m, to, version): save_results(g.score(m["out"], m["pairs"]).assign(version=version), to/"results.csv", settings="x"*300)
def w_cells(m, to, version): evaluate(m["pairs"], m["pairs"], ns=(version,), seeds=(0,), methods=("copy",), vdm=m["d"]/"vdm", out=to/"cells", progress=False)
def w_pairs(m, to, version): m["pairs"].save(to/f"task{version}")
def w_run(m, to, version): g.finetune(m["pairs"], m["vdm"], steps=2, save_every=1, seed=version, out=to/f"run{version}", progress=False)
WRITERS = [w_adapter, w_predictions, w_videos, w_mp4, w_tensors, w_results, w_cells, w_pairs, w_run]

@contextmanager
def limited(folder):
    "No file of this process may grow beyond 100 bytes"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)

@contextmanager
def filled(folder):
    "A file takes all the room"
    with open(folder/"filler", "wb", buffering=0) as f:
        try:
            while f.write(bytes(1 << 16)): pass
        except OSError as e: assert e.errno == errno.ENOSPC
    try: yield
    finally: (folder/"filler").unlink()

@contextmanager
def read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    try: yield
    finally: subprocess.run(["mount", "-o", "remount,rw", folder], check=True)

@pytest.fixture
def disk(tmp_path):
    "A disk of 4 MB of its own"
    (to := tmp_path/"disk").mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", to], capture_output=True).returncode: pytest.skip("mounting a small disk needs root and the right to mount")
    yield to
    subprocess.run(["umount", "-l", to], check=True)

def check_writer(made, to, write, fault):
    write(made, to, 1)
    before = content(to)
    with fault(to): refused(lambda: write(made, to, 2), to, error=OSError)
    assert content(to) == before, "the earlier files are untouched, and nothing was added"

@pytest.mark.parametrize("write", WRITERS)
def test_file_size_limit(made, tmp_path, write):
    (to := tmp_path/"disk").mkdir()
    check_writer(made, to, write, limited)

@pytest.mark.parametrize("write", WRITERS)
def test_full_disk(made, disk, write): check_writer(made, disk, write, filled)

@pytest.mark.parametrize("write", WRITERS)
def test_read_only_disk(made, disk, write): check_writer(made, disk, write, read_only)

@pytest.mark.parametrize("write", WRITERS)
def test_folder_below_a_file(made, tmp_path, write):
    (tmp_path/"file").write_text("here")
    refused(lambda: write(made, tmp_path/"file", 1), tmp_path/"file", error=OSError)
    assert content(tmp_path) == {"file": b"here"}

def test_cache_on_a_full_disk_only_warns(made, disk):
    "The work goes on without a cache"
    videos = g.make_videos(made["pairs"], n_frames=3)
    with filled(disk), pytest.warns(UserWarning, match="not cached"): got = cached_latents(made["vdm"], videos, cache_dir=disk/"cache")
    assert (got == made["vdm"].encode(videos)).all() and not list(disk.rglob("*.safetensors*"))

def test_damaged_cache_is_made_again(made, tmp_path):
    videos = g.make_videos(made["pairs"], n_frames=3)
    want = cached_latents(made["vdm"], videos, cache_dir=tmp_path)
    file, = tmp_path.rglob("*.safetensors")
    cut(file)
    assert (cached_latents(made["vdm"], videos, cache_dir=tmp_path) == want).all() and (load_file(file)["latents"] == want).all()

@pytest.mark.parametrize("fault", [filled, read_only])
def test_disks_through_the_command_line(d, disk, fault):
    with fault(disk):
        for line in (f"finetune {d}/task --vdm {d}/vdm --steps 2 --out {disk}/new", f"predict {d}/adapter {d}/task/input --vdm {d}/vdm --out {disk}/new",
                     f"score {d}/adapter {d}/task --vdm {d}/vdm --csv {disk}/new.csv"): cli_refuses(line, f"{disk}/new")
    assert content(disk) == {}

def test_output_below_a_file_through_the_command_line(d):
    for line in (f"finetune {d}/task --vdm {d}/vdm --steps 2 --out {d}/adapter/{LAST}/new", f"predict {d}/adapter {d}/task/input --vdm {d}/vdm --out {d}/adapter/{LAST}/new",
                 f"score {d}/adapter {d}/task --vdm {d}/vdm --csv {d}/adapter/{LAST}/new.csv"): cli_refuses(line, f"{d}/adapter/{LAST}")

# Ctrl-C
def test_ctrl_c_saves_and_says_how_to_resume(d, made):
    steps, out = 40, d/"run"
    line = ["finetune", f"{d}/task", "--vdm", f"{d}/vdm", "--out", f"{out}", "--steps", f"{steps}", "--seed", "3"]
    p = subprocess.Popen([sys.executable, "-c", "from gen2gen.cli import main; main()", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    seen = b""
    while not re.search(rb"\b[1-9]\d*/40", seen) and (c := p.stderr.read(1)): seen += c
    p.send_signal(signal.SIGINT)
    stdout, stderr = p.communicate(timeout=LIMIT)
    last = stderr.decode().strip().splitlines()[-1]
    assert (p.returncode, stdout) == (130, b"") and "Traceback" not in stderr.decode(), stderr.decode()
    assert re.search(rf"stopped after step \d+ of {steps}.*{out/CHECKPOINT}.*--resume", last), last
    assert sorted(o.name for o in out.iterdir()) == [CHECKPOINT]
    cli_refuses(shlex.join(line), CHECKPOINT, "--resume")
    r = CliRunner().invoke(app, [*line, "--resume", "--json", "--quiet"])
    assert r.exit_code == 0 and json.loads(r.stdout)["steps"] == steps
    undisturbed = g.finetune(made["pairs"], made["vdm"], steps=steps, seed=3, progress=False)
    got = g.load_adapter(out, made["vdm"])
    assert got.settings["losses"] == undisturbed.settings["losses"] and all((got.state[k] == v).all() for k, v in undisturbed.state.items())

def test_ctrl_c_while_tidying_up(tmp_path, monkeypatch):
    "Ctrl-C in the moment after a file has got its name leaves nothing beside it"
    rmtree, calls = shutil.rmtree, []
    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1: raise KeyboardInterrupt
        rmtree(*args, **kwargs)
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), whole(tmp_path/"a.txt") as part: part.write_text("new")
    assert [o.name for o in tmp_path.iterdir()] == ["a.txt"] and (tmp_path/"a.txt").read_text() == "new"

# Names that lead out of the folder
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", "a\\b", ".hidden", ""])
def test_names_stay_in_the_folder(made, tmp_path, name):
    made["out"].names[0], before = name, made["out"].names[0]
    try: refused(lambda: made["out"].save(tmp_path/"x"), "file name")
    finally: made["out"].names[0] = before
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", ".."])
def test_tasks_stay_in_the_folder(made, tmp_path, name):
    refused(lambda: evaluate(made["pairs"], made["pairs"], ns=(1,), task=name, out=tmp_path/"x"), "is to name a file")
    assert not list(tmp_path.iterdir())

def test_adapter_that_names_a_file_elsewhere(d, made):
    about = json.loads((d/"adapter"/LAST).read_text())
    (d/"adapter"/LAST).write_text(json.dumps(about | dict(weights=f"../vdm/{WEIGHTS}")))
    refused(lambda: g.load_adapter(d/"adapter", made["vdm"]), LAST, f"../vdm/{WEIGHTS}")

@pytest.mark.parametrize("command", ["finetune {zip} --vdm {d}/vdm --out {d}/new", "score {d}/adapter {zip} --vdm {d}/vdm"])
def test_zip_slip_through_the_command_line(d, command):
    with zipfile.ZipFile(d/"evil.zip", "w") as z:
        for p in sorted((d/"task").rglob("*.png")): z.write(p, p.relative_to(d/"task").as_posix())
        z.writestr("input/../../evil.png", b"x")
    before = content(d)
    cli_refuses(command.format(zip=d/"evil.zip", d=d), "evil.zip", "leads out of the zip")
    assert content(d) == before
