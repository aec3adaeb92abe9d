"A fine-tuning that is killed, at any moment, and started again ends with the same bits as one that was left alone."
import json, multiprocessing, os, random, signal, sys

import pytest
import torch
from safetensors.torch import load_file

from conftest import LIMIT
from gen2gen.files import LAST
from gen2gen.pairs import Pairs, photos
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import CHECKPOINT, finetune

STEPS = 10
CALLS = 5_000  # of Python functions in less than a step
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

class Strike:
    """A signal to this very process, a number of Python calls after its next checkpoint is in place. Moments are counted
    in calls, not in seconds, so they are as random on a slow machine as on a fast one."""
    def __init__(self, calls, what=signal.SIGKILL): self.calls, self.what = calls, what
    def __call__(self):
        replace = os.replace
        def count(frame, event, arg):
            self.calls -= 1
            if self.calls < 0:
                sys.setprofile(None)
                os.kill(os.getpid(), self.what)
        def trap(*args):
            os.replace = replace
            replace(*args)
            sys.setprofile(count)
        os.replace = trap

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The run that nobody disturbs"
    out = tmp_path_factory.mktemp("whole")/"run"
    finish(out)
    assert sorted(p.name for p in out.iterdir()) == [LAST, WEIGHTS]
    return result(out)

def test_killed_at_random_moments(tmp_path, whole):
    out, rng = tmp_path/"run", random.Random(0)
    for _ in range(6):
        p = start(out, Strike(rng.randrange(CALLS)))
        p.join()
        assert p.exitcode == -signal.SIGKILL
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
    p = start(out, Strike(CALLS//2, signal.SIGINT))
    p.join()
    assert p.exitcode == 1
    assert [o.name for o in out.iterdir()] == [CHECKPOINT]
    finish(out)
    assert result(out) == whole

def test_finished_run_is_not_repeated(tmp_path, whole):
    out = tmp_path/"run"
    finish(out)
    before = (out/LAST).stat().st_mtime_ns
    finish(out)
    assert (out/LAST).stat().st_mtime_ns == before and result(out) == whole
