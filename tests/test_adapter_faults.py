"What cannot be an adapter, a checkpoint or a setting is refused by one clear error, and nothing half-written is left or read."
import errno, hashlib, json, os, pickle, tempfile

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker, on_main_process
from diffusers.loaders import WanLoraLoaderMixin
from safetensors.torch import load_file, save_file

from gen2gen.adapter import LAST, Adapter, Predictions, base_weights, load_adapter, lora_config, lora_on
from gen2gen.finetune import CHECKPOINT, StopFinetuning, default_settings, finetune
from gen2gen.pairs import Pairs
from gen2gen.tiny import Tiny, random_transformer

WEIGHTS = "pytorch_lora_weights.safetensors"
x = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
pairs = Pairs(x, 255-x)
vdm = Tiny(random_transformer(0, num_layers=1), device="cpu", dtype=torch.float32, revision="random-0")
quick = dict(vdm=vdm, steps=2, batch_size=2, progress=False)

def refused(fn, *words, error=ValueError):
    with pytest.raises(error) as e: fn()
    for word in words: assert word in str(e.value), f"{word!r} is missing in: {e.value}"
    return e.value

@pytest.fixture(scope="module")
def adapter(): return finetune(pairs, alpha=4, rank=2, lr=.1, **quick)

@pytest.fixture
def folder(adapter, tmp_path): return adapter.save(tmp_path/"adapter")

def describe(folder, **changes):
    "Rewrite gen2gen.json, so that it fits the weights file as it is now"
    about = json.loads((folder/LAST).read_text()) | dict(sha256=hashlib.sha256((folder/WEIGHTS).read_bytes()).hexdigest()) | changes
    (folder/LAST).write_text(json.dumps(about))

# Reading an adapter
def test_round_trip(adapter, folder):
    back = load_adapter(folder, vdm)
    assert (back.predict(x).videos == adapter.predict(x).videos).all()
    assert back.settings == adapter.settings and back.settings["losses"]
    assert json.loads((folder/LAST).read_text())["settings"]["alpha"] == 4

def test_diffusers_reads_rank_and_alpha(adapter, folder):
    state, meta = WanLoraLoaderMixin.lora_state_dict(str(folder), return_lora_metadata=True, local_files_only=True, use_safetensors=True)
    assert (meta["transformer.r"], meta["transformer.lora_alpha"]) == (2, 4)
    assert {k.removeprefix("transformer.") for k in state} == adapter.state.keys()

def test_no_folder(tmp_path): refused(lambda: load_adapter(tmp_path/"nowhere", vdm), "nowhere", "no such folder", error=FileNotFoundError)
def test_empty_folder(tmp_path): refused(lambda: load_adapter(tmp_path, vdm), "not an adapter folder", LAST, error=FileNotFoundError)
def test_weights_without_settings(folder):
    (folder/LAST).unlink()
    refused(lambda: load_adapter(folder, vdm), LAST, "missing", error=FileNotFoundError)
def test_settings_without_weights(folder):
    (folder/WEIGHTS).unlink()
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "missing", error=FileNotFoundError)
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weights": "x"}', '{"weights": "' + WEIGHTS + '", "sha256": "", "settings": {"vdm": {}}}'])
def test_damaged_settings(folder, text):
    (folder/LAST).write_text(text)
    refused(lambda: load_adapter(folder, vdm), LAST, "damaged")
def test_settings_that_name_another_file(folder):
    describe(folder, weights="../../somewhere.safetensors")
    refused(lambda: load_adapter(folder, vdm), "../../somewhere.safetensors")
@pytest.mark.parametrize("keep", [0, 4, 100, -1], ids=["empty", "4 bytes", "100 bytes", "all but one byte"])
def test_truncated_weights(folder, keep):
    data = (folder/WEIGHTS).read_bytes()
    (folder/WEIGHTS).write_bytes(data[:keep])
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "not a whole safetensors file")
def test_changed_weights(folder):
    data = bytearray((folder/WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder/WEIGHTS).write_bytes(data)
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "not the file that")
def test_pickle_in_disguise(folder):
    (folder/WEIGHTS).write_bytes(pickle.dumps({"weight": [1]}))
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "not a whole safetensors file")
def test_pickle_beside(folder):
    (folder/WEIGHTS).rename(folder/"pytorch_lora_weights.bin")
    refused(lambda: load_adapter(folder, vdm), "pytorch_lora_weights.bin", "pickle")
def test_no_alpha(folder):
    save_file(load_file(folder/WEIGHTS), folder/WEIGHTS)
    describe(folder)
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "rank and alpha")
def test_another_revision(folder):
    other = Tiny(random_transformer(1, num_layers=1), device="cpu", revision="random-1")
    refused(lambda: load_adapter(folder, other), "random-0", "random-1")
def test_another_vdm(folder):
    about = json.loads((folder/LAST).read_text())
    about["settings"]["vdm"]["name"] = "wan"
    (folder/LAST).write_text(json.dumps(about))
    refused(lambda: load_adapter(folder, vdm), "'wan'", "'tiny'")
def test_other_shapes(folder):
    deeper = Tiny(random_transformer(0, num_layers=2), device="cpu", revision="random-0")
    refused(lambda: load_adapter(folder, deeper), WEIGHTS, "do not fit")

# Writing an adapter
class Full:
    "os.replace on a disk that fills up at the nth file"
    def __init__(self, nth): self.nth, self.replace = nth, os.replace
    def __call__(self, *args):
        self.nth -= 1
        if self.nth == 0: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.replace(*args)

def test_a_file_is_in_the_way(adapter, tmp_path):
    (tmp_path/"taken").write_text("mine")
    refused(lambda: adapter.save(tmp_path/"taken"), "taken", error=OSError)
    assert (tmp_path/"taken").read_text() == "mine"
def test_full_disk_leaves_no_new_folder(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", Full(1))
    assert refused(lambda: adapter.save(tmp_path/"new"), "new", "No space left", error=OSError).errno == errno.ENOSPC
    assert not (tmp_path/"new").exists()
def test_half_written_is_not_read(adapter, folder, monkeypatch):
    "The disk fills up between the weights and their description, over an older adapter"
    other = Adapter(vdm, {k: v+1 for k, v in adapter.state.items()}, adapter.settings, adapter.config)
    monkeypatch.setattr(os, "replace", Full(2))
    refused(lambda: other.save(folder), error=OSError)
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "not the file that")
def test_read_only_folder(adapter):
    out = adapter.predict(x)
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o555)
        root = os.geteuid() == 0  # root may write anywhere, so for a moment be somebody else
        if root: os.seteuid(65534)
        try:
            for save in (adapter.save, out.save): refused(lambda: save(f"{top}/new"), "new", "Permission denied", error=PermissionError)
            refused(lambda: finetune(pairs, out=f"{top}/new", **quick), "new", "Permission denied", error=PermissionError)
        finally:
            if root: os.seteuid(0)
        assert not os.listdir(top)
def test_names_that_leave_the_folder(tmp_path):
    out = Predictions.of(x, np.repeat(x[:, None, None], 3, 2), ["a", "../b", "c"])
    refused(lambda: out.save(tmp_path/"out"), "../b")
    assert not list(tmp_path.iterdir())

# Predicting
def test_float_inputs(adapter): refused(lambda: adapter.predict(x/255), "float64", "255")
def test_path_as_input(adapter): refused(lambda: adapter.predict("a.png"), "path", "load_images")
def test_size_the_model_cannot_take(adapter): refused(lambda: adapter.predict(x[:, :15]), "15×16", "16×16")
def test_no_samples(adapter): refused(lambda: adapter.predict(x, samples=0), "samples=0")
def test_batches_do_not_matter(adapter):
    one, all_ = (adapter.predict(x, samples=2, batch_size=b, progress=False).all_images.astype(int) for b in (1, 6))
    assert abs(one-all_).max() <= 1
def test_an_error_leaves_the_model_as_it_was(adapter):
    before = {k: v.clone() for k, v in vdm.transformer.state_dict().items()}
    for other in (adapter, Adapter(vdm, {k: p+1 for k, p in base_weights(vdm).items()})):
        with pytest.raises(RuntimeError), other.active(): raise RuntimeError
        after = vdm.transformer.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
def test_adapters_nest(adapter):
    other = Adapter(vdm, {k: torch.ones_like(v) for k, v in adapter.state.items()}, config=adapter.config)
    full = Adapter(vdm, {k: p*.5 for k, p in base_weights(vdm).items()})
    alone = [a.predict(x, steps=1).images for a in (adapter, other, full)]
    with adapter.active():
        assert (other.predict(x, steps=1).images == alone[1]).all() and (full.predict(x, steps=1).images == alone[2]).all()
        assert (Predictions.of(x, vdm.sample(x, [torch.Generator().manual_seed(0)]*3, 1)[:, None]).images != x).any()
    assert (adapter.predict(x, steps=1).images == alone[0]).all()

# Settings of finetune
@pytest.mark.parametrize("wrong, word", [(dict(method="magic"), "'magic'"), (dict(transition="magic"), "'magic'"), (dict(metric="magic"), "'magic'"), (dict(steps=0), "steps=0"),
    (dict(rank=0), "rank=0"), (dict(batch_size=0), "batch_size=0"), (dict(lr=-1.), "lr=-1"), (dict(lr=float("nan")), "lr=nan"), (dict(n_frames=40), "9"), (dict(vdm="magic"), "'magic'"),
    (dict(heldout=x), "heldout must be Pairs"), (dict(resume=True), "out="), (dict(augment=dict(flips=True, copies=2)), "keep number and size")], ids=lambda o: str(o)[:24])
def test_wrong_settings(wrong, word): refused(lambda: finetune(pairs, **quick | wrong), word)
def test_not_pairs(): refused(lambda: finetune(x, **quick), "train must be Pairs")
def test_wrong_size(): refused(lambda: finetune(Pairs(x[:, :15], x[:, :15]), **quick), "15×16", "16×16")
def test_output_that_cannot_be_a_folder(tmp_path):
    (tmp_path/"taken").write_text("mine")
    steps = []
    refused(lambda: finetune(pairs, out=tmp_path/"taken", callbacks=[steps.append], **quick), "taken", error=OSError)
    assert not steps, "found out before the work, not after it"

# Checkpoints
def stop(event): raise KeyboardInterrupt

@pytest.fixture
def unfinished(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="resume=True"): finetune(pairs, out=tmp_path/"run", callbacks=[stop], **quick)
    return tmp_path/"run"

def go_on(out, **changes): return finetune(pairs, out=out, resume=True, **quick | changes)
def test_unfinished_run_is_not_overwritten(unfinished): refused(lambda: finetune(pairs, out=unfinished, **quick), CHECKPOINT, "resume=True", error=FileExistsError)
def test_other_settings(unfinished): refused(lambda: go_on(unfinished, seed=1, rank=3), "seed: 42 then, 1 now", "rank: 16 then, 3 now")
def test_other_pairs(unfinished): refused(lambda: finetune(Pairs(x, x), out=unfinished, resume=True, **quick), "pairs: ")
def test_truncated_checkpoint(unfinished):
    (unfinished/CHECKPOINT).write_bytes((unfinished/CHECKPOINT).read_bytes()[:-1])
    refused(lambda: go_on(unfinished), CHECKPOINT, "not a whole safetensors file")
def test_pickle_as_checkpoint(unfinished):
    (unfinished/CHECKPOINT).write_bytes(pickle.dumps({"step": 1}))
    refused(lambda: go_on(unfinished), CHECKPOINT, "not a whole safetensors file")
def test_foreign_checkpoint(unfinished):
    save_file(dict(a=torch.zeros(1)), unfinished/CHECKPOINT)
    refused(lambda: go_on(unfinished), CHECKPOINT, "no checkpoint of finetune")
def test_full_disk_keeps_the_last_checkpoint(unfinished, monkeypatch):
    before = (unfinished/CHECKPOINT).read_bytes()
    with monkeypatch.context() as m:
        m.setattr(os, "replace", Full(1))
        refused(lambda: go_on(unfinished, save_every=1), CHECKPOINT, "No space left", "untouched", error=OSError)
    assert (unfinished/CHECKPOINT).read_bytes() == before and [p.name for p in unfinished.iterdir()] == [CHECKPOINT]
    straight = finetune(pairs, **quick)
    assert all(torch.equal(v, straight.state[k]) for k, v in go_on(unfinished).state.items())

def test_full_method_resumes(tmp_path):
    setup = quick | dict(method="full", heldout=pairs, eval_every=1)
    with pytest.raises(KeyboardInterrupt): finetune(pairs, out=tmp_path/"run", callbacks=[stop], **setup)
    straight, resumed = finetune(pairs, **setup), finetune(pairs, out=tmp_path/"run", resume=True, **setup)
    assert all(torch.equal(v, resumed.state[k]) for k, v in straight.state.items())
    assert resumed.settings["scores"] == straight.settings["scores"]

# While training
def test_loss_that_is_not_finite(tmp_path):
    def blow_up(event): event.trainer.optimizer.param_groups[0]["lr"] = 1e30
    e = refused(lambda: finetune(pairs, out=tmp_path/"run", callbacks=[blow_up], **quick | dict(steps=6)), "step ", "lower lr", "another out", CHECKPOINT, error=FloatingPointError)
    assert all(v.isfinite().all() for v in e.adapter.state.values())
    assert all(v.isfinite().all() for v in load_file(tmp_path/"run"/CHECKPOINT).values())
    assert not any(p.requires_grad for p in vdm.transformer.parameters()) and not hasattr(vdm.transformer, "peft_config")
def test_best_step_is_kept():
    "After a good start the weights are ruined: the good step is what comes back, and it says so"
    states = {}
    def ruin(event):
        states[event.step] = event.adapter.state
        if event.step == 2: event.trainer.put({k: v*1e3 for k, v in event.trainer.state().items()})
    best = finetune(pairs, heldout=pairs, eval_every=1, callbacks=[ruin], **quick | dict(steps=4, lr=.01, warmup=0))
    scores = dict(best.settings["scores"])
    kept = best.settings["best_step"]
    assert kept in (1, 2) and scores[kept] == max(v for k, v in scores.items() if k) and "best held-out psnr" in best.settings["kept_because"]
    assert all(torch.equal(v, states[kept][k]) for k, v in best.state.items())
    assert (best.predict(pairs).images == Adapter(vdm, states[kept], config=best.config).predict(pairs).images).all()
def test_stop_saves_and_clears(tmp_path):
    def enough(event): raise StopFinetuning
    adapter = finetune(pairs, out=tmp_path/"run", callbacks=[enough], **quick)
    assert adapter.settings["steps_done"] == 1 and adapter.settings["stopped_early"]
    assert sorted(p.name for p in (tmp_path/"run").iterdir()) == [LAST, WEIGHTS]

class Tracker(GeneralTracker):
    "A tracker of accelerate that keeps what it is told"
    name, requires_logging_directory = "kept", False
    def __init__(self): super().__init__(); self.told = []
    @property
    def tracker(self): return self.told
    @on_main_process
    def store_init_configuration(self, values): self.told.append(values)
    @on_main_process
    def log(self, values, step=None, **_): self.told.append((step, values))

def test_tracker():
    finetune(pairs, heldout=pairs, eval_every=2, tracker=(t := Tracker()), **quick)
    config, first, last = t.told
    assert config["lr"] == default_settings(len(pairs))["lr"] and first[0] == 1 and "psnr" not in first[1] and {"loss", "lr", "psnr"} == last[1].keys()

def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    finetune(pairs, **quick).predict(x, progress=False)
    assert torch.equal(before, torch.get_rng_state())

def test_lora_scale():
    "B A x acts with alpha/rank, so alpha 4 with B is alpha 2 with 2 B"
    with lora_on(vdm, lora_config(vdm, 2), seed=1) as name: state = {k.replace(f".{name}.", "."): v.detach().clone() for k, v in vdm.transformer.named_parameters() if ".lora_" in k}
    state = {k: torch.ones_like(v)*.1 if "lora_B" in k else v for k, v in state.items()}
    double = {k: v*2 if "lora_B" in k else v for k, v in state.items()}
    a, b = (Adapter(vdm, s, config=lora_config(vdm, 2, alpha)).predict(x, steps=1).images.astype(int) for s, alpha in ((state, 4), (double, 2)))
    assert abs(a-b).max() <= 1
