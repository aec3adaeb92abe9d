"A fine-tuning that is killed, at any moment, and started again ends with the same bits as one that was left alone."
import json, multiprocessing, os, random, signal, time

import pytest
import torch
from safetensors.torch import load_file

from conftest import LIMIT
from gen2gen.files import LAST
from gen2gen.pairs import Pairs, photos
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import CHECKPOINT, finetune

STEPS = 10
WEIGHTS = "pytorch_lora_weights.safetensors"
# A server that has imported everything forks the processes that are killed: each starts in a moment and is a real one.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["gen2gen.train", "skimage.data", "pytest"])

def train(out, trap=None):
    "One process's work. The pairs are augmented, scored and checkpointed all along, so that a kill can hit anything."
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit a SIGINT that is ignored
    if trap: trap()
    x = photos(["chelsea", "coffee", "rocket"], size=16, crops=2)
    pairs = Pairs(x, 255-x)
    vdm = Tiny(random_transformer(0, num_layers=2), revision="random-0")
    finetune(pairs[:4], vdm, heldout=pairs[4:], augment=dict(flips=True), steps=STEPS, batch_size=3, eval_every=5, out=out, save_every=1, resume=True, progress=False)

def start(*args):
    p = processes.Process(target=train, args=args)
    p.start()
    return p

def finish(*args):
    p = start(*args)
    p.join(LIMIT)
    assert p.exitcode == 0

def result(out):
    settings = json.loads((out/LAST).read_text())["settings"]
    weights = {k: v.numpy().tobytes() for k, v in load_file(out/WEIGHTS).items()}
    return weights, settings["losses"], settings["scores"], settings["best_step"]

def wait_for_change(file, p, before):
    "Until the checkpoint is another than `before`, or the process has ended"
    while p.is_alive():
        try:
            if file.stat().st_mtime_ns != before: return
        except FileNotFoundError: pass
        time.sleep(.001)

def stamp(file): return file.stat().st_mtime_ns if file.exists() else None

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The run that nobody disturbs"
    out = tmp_path_factory.mktemp("whole")/"run"
    finish(out)
    assert sorted(p.name for p in out.iterdir()) == [LAST, WEIGHTS]
    return result(out)

def test_killed_at_random_moments(tmp_path, whole):
    out, rng, kills = tmp_path/"run", random.Random(0), 0
    for _ in range(6):
        p, before = start(out), stamp(out/CHECKPOINT)
        wait_for_change(out/CHECKPOINT, p, before)
        time.sleep(rng.uniform(0, .15))
        p.kill(); p.join()
        kills += p.exitcode == -signal.SIGKILL
        if p.exitcode == 0: break
    assert kills >= 3
    finish(out)
    assert result(out) == whole
    assert sorted(p.name for p in out.iterdir()) == [LAST, WEIGHTS], "a killed process's half-written files are cleared"

def die_in_replace(nth):
    "Kill this very process at its nth renaming of a finished file: the file is written, and not yet in place"
    replace, calls = os.replace, []
    def trap(*args):
        calls.append(args)
        if len(calls) == nth: os.kill(os.getpid(), signal.SIGKILL)
        replace(*args)
    os.replace = trap

class DieInReplace:
    def __init__(self, nth): self.nth = nth
    def __call__(self): die_in_replace(self.nth)

@pytest.mark.parametrize("nth", [1, 5, STEPS+1, STEPS+2], ids=["first checkpoint", "fifth checkpoint", "adapter's weights", "adapter's settings"])
def test_killed_while_saving(tmp_path, whole, nth):
    out = tmp_path/"run"
    p = start(out, DieInReplace(nth))
    p.join()
    assert p.exitcode == -signal.SIGKILL
    assert not (out/LAST).exists(), "an adapter without its settings is not taken for a whole one"
    finish(out)
    assert result(out) == whole

def test_ctrl_c_in_a_process(tmp_path, whole):
    out = tmp_path/"run"
    p = start(out)
    wait_for_change(out/CHECKPOINT, p, None)
    os.kill(p.pid, signal.SIGINT)
    p.join()
    assert p.exitcode == 1
    assert [o.name for o in out.iterdir()] == [CHECKPOINT]
    finish(out)
    assert result(out) == whole

def test_finished_run_is_not_repeated(tmp_path, whole):
    out = tmp_path/"run"
    finish(out)
    before = stamp(out/LAST)
    finish(out)
    assert stamp(out/LAST) == before and result(out) == whole
