"What cannot be an adapter, a checkpoint or a setting is refused by one clear error, and nothing half-written is left or read."
import errno, hashlib, json, os, pickle, tempfile

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker, on_main_process
from diffusers.loaders import WanLoraLoaderMixin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gen2gen.adapter import Adapter, Predictions, base_weights, import_lora, load_adapter, lora_config, lora_on, lora_state

from gen2gen.evaluate import score
from gen2gen.files import LAST, LOCK
from gen2gen.pairs import Pairs
from gen2gen.registry import load_vdm
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import CHECKPOINT, StopFinetuning, default_settings, finetune

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
def test_size_the_model_cannot_take(adapter): refused(lambda: adapter.predict(x, size=(15, 16)), "15×16", "16×16")
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

@pytest.mark.parametrize("wrong", [dict(max_grad_norm=-1.), dict(max_grad_norm=0), dict(alpha=0), dict(alpha=-1.), dict(lr=0), dict(lr=float("inf")), dict(save_every=0), dict(eval_every=0),
    dict(batch_size=-3), dict(steps=-1), dict(steps=2.5), dict(steps="2"), dict(steps=True), dict(seed=-1), dict(seed=10**23), dict(rank=-1), dict(accumulation=0), dict(warmup=-1), dict(n_frames=0),
    dict(schedule="magic"), dict(preset="magic"), dict(resize="magic"), dict(augment="flips"), dict(augment=dict(magic=1)), dict(max_grad_norm=float("nan"))], ids=str)
def test_settings_that_cannot_be_meant(wrong, tmp_path):
    "Said in words that name the setting, before any work"
    steps = []
    (name, value), = wrong.items()
    refused(lambda: finetune(pairs, heldout=pairs, out=tmp_path/"new", callbacks=[steps.append], **quick | wrong), f"{name}={value!r}", "must be")
    assert not steps and not (tmp_path/"new").exists()

@pytest.mark.parametrize("wrong", [dict(samples=0), dict(samples=-1), dict(steps=0), dict(steps=-2), dict(seed=-1), dict(seed=10**23), dict(batch_size=0), dict(resize="magic")], ids=str)
def test_settings_of_predict_that_cannot_be_meant(adapter, wrong):
    (name, value), = wrong.items()
    refused(lambda: adapter.predict(x, **wrong), f"{name}={value!r}", "must be")
def test_none_means_the_default():
    s = finetune(pairs, transition=None, metric=None, method=None, max_grad_norm=float("inf"), **quick).settings
    assert (s["transition"], s["metric"], s["method"]) == ("discrete", "psnr", "lora")

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
@pytest.mark.parametrize("change, words", [(dict(steps=3), "steps: 2 then, 3 now"), (dict(lr=.5), "lr: "), (dict(train=Pairs(x, x)), "pairs: ")], ids=lambda o: str(o)[:12])
def test_a_finished_adapter_is_not_replaced(tmp_path, change, words):
    "Neither by resuming with another run, nor by a new one; but by overwrite=True"
    made = finetune(pairs, out=tmp_path/"a", **quick)
    before = {p: p.read_bytes() for p in (tmp_path/"a").iterdir()}
    other = dict(train=pairs, out=tmp_path/"a") | quick | change
    refused(lambda: finetune(resume=True, **other), "a holds the finished adapter of another run", words, "overwrite=True")
    refused(lambda: finetune(**other), LAST, "overwrite=True", error=FileExistsError)
    refused(lambda: finetune(resume=True, overwrite=True, **other), "only one")
    assert {p: p.read_bytes() for p in (tmp_path/"a").iterdir()} == before
    assert finetune(pairs, out=tmp_path/"a", resume=True, **quick).settings == made.settings
    finetune(overwrite=True, **other)
    assert {p: p.read_bytes() for p in (tmp_path/"a").iterdir()} != before
def test_overwrite_discards_an_unfinished_run(unfinished):
    assert finetune(pairs, out=unfinished, overwrite=True, **quick).settings["steps_done"] == 2
    assert sorted(p.name for p in unfinished.iterdir()) == [LAST, WEIGHTS]
def test_two_runs_in_one_folder(tmp_path):
    "The second is refused, whatever it is; the first goes on. What a killed run leaves does not block"
    def second(event):
        for how in ({}, dict(resume=True), dict(overwrite=True)):
            refused(lambda: finetune(pairs, out=tmp_path/"run", **quick | how), "run is in use", LOCK, error=BlockingIOError)
    (tmp_path/"run").mkdir()
    (tmp_path/"run"/LOCK).touch()
    finetune(pairs, out=tmp_path/"run", callbacks=[second], **quick)
    assert sorted(p.name for p in (tmp_path/"run").iterdir()) == [LAST, WEIGHTS]
def test_nan_in_a_checkpoint(unfinished):
    with safe_open(unfinished/CHECKPOINT, "pt") as f: header = f.metadata()
    save_file({k: torch.full_like(v, float("nan")) if k.startswith("now/") else v for k, v in load_file(unfinished/CHECKPOINT).items()}, unfinished/CHECKPOINT, metadata=header)
    refused(lambda: go_on(unfinished), CHECKPOINT, "NaN")
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
@pytest.mark.parametrize("lr", [1e39, 1e38, 1e30])
def test_one_step_that_ruins_the_weights(tmp_path, lr):
    "The last step is as suspect as the others: a loss after it is looked at, and the weights are"
    e = refused(lambda: finetune(pairs, out=tmp_path/"run", warmup=0, **quick | dict(steps=1, lr=lr)), "step", "lower lr", error=FloatingPointError)
    assert all(v.isfinite().all() for v in e.adapter.state.values()) and not (tmp_path/"run"/LAST).exists()
    assert all(v.isfinite().all() for v in load_file(tmp_path/"run"/CHECKPOINT).values())
def test_a_nan_score_is_never_the_best():
    from gen2gen.metrics import METRICS
    scores = iter([1., float("nan"), 3., 2., float("nan")])
    metric = METRICS["psnr"]._replace(fn=lambda a, b: np.full(len(a), next(scores)))
    assert finetune(pairs, heldout=pairs, eval_every=1, metric=metric, **quick | dict(steps=4)).settings["best_step"] == 2
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

# LoRA files of other programs: names of every kind, strength from wherever it is said
def lora_layers(seed=0, rank=2, only=""):
    "Layer → (A, B), random, of the model's own LoRA targets"
    g = torch.Generator().manual_seed(seed)
    with lora_on(vdm, lora_config(vdm, rank)) as name: shapes = {k: v.shape for k, v in lora_state(vdm, name).items()}
    state = {k: torch.randn(v, generator=g)*.2 for k, v in shapes.items() if only in k}
    return {k.split(".lora_")[0]: (state[k], state[k.replace("lora_A", "lora_B")]) for k in state if "lora_A" in k}

def answer_of(layers, strength):
    "What the model answers with such a LoRA, of that strength"
    rank = len(next(iter(layers.values()))[0])
    state = {f"{k}.lora_{p}.weight": v for k, ab in layers.items() for p, v in zip("AB", ab)}
    return Adapter(vdm, state, config=lora_config(vdm, rank, rank*strength, sorted(layers))).predict(x, steps=1, progress=False).images

def kohya(layer): return "lora_unet_" + layer.replace(".", "_")
SPELLINGS = {
    "diffusers": lambda k, a, b: {f"transformer.{k}.lora_A.weight": a, f"transformer.{k}.lora_B.weight": b},
    "bare": lambda k, a, b: {f"{k}.lora_A.weight": a, f"{k}.lora_B.weight": b},
    "peft": lambda k, a, b: {f"base_model.model.{k}.lora_A.weight": a, f"base_model.model.{k}.lora_B.weight": b},
    "peft, default": lambda k, a, b: {f"base_model.model.{k}.lora_A.default.weight": a, f"base_model.model.{k}.lora_B.default.weight": b},
    "down and up": lambda k, a, b: {f"diffusion_model.{k}.lora_down.weight": a, f"diffusion_model.{k}.lora_up.weight": b},
    "kohya": lambda k, a, b: {f"{kohya(k)}.lora_down.weight": a, f"{kohya(k)}.lora_up.weight": b},
    "kohya, alpha": lambda k, a, b: {f"{kohya(k)}.lora_down.weight": a, f"{kohya(k)}.lora_up.weight": b, f"{kohya(k)}.alpha": torch.tensor(.5)}}

def foreign(tmp_path, layers, spelling="bare", header=None):
    file = tmp_path/"lora.safetensors"
    save_file({n: v.contiguous() for k, ab in layers.items() for n, v in SPELLINGS[spelling](k, *ab).items()}, file, metadata=header)
    return file

@pytest.mark.parametrize("only", ["", "attn1", "blocks.0.attn1.to_q"], ids=["all layers", "attention only", "one layer"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_lora_names(tmp_path, spelling, only):
    layers = lora_layers(only=only)
    back = import_lora(foreign(tmp_path, layers, spelling), vdm)
    assert (back.predict(x, steps=1, progress=False).images == answer_of(layers, .25 if "alpha" in spelling else 1)).all()

@pytest.mark.parametrize("header, strength", [(None, 1), (dict(lora_alpha="8", rank="2"), 4), (dict(lora_alpha="0.5", rank="2"), .25), (dict(ss_network_alpha="0.5"), .25),
    (dict(ss_network_alpha="1", ss_network_dim="2"), .5), (dict(format="pt"), 1),
    (dict(lora_adapter_metadata=json.dumps({"transformer.r": 2, "transformer.lora_alpha": 1})), .5),
    (dict(lora_adapter_metadata=json.dumps({"transformer.r": 2, "transformer.lora_alpha": 2**.5, "transformer.use_rslora": True})), 1)], ids=str)
def test_lora_strength(tmp_path, header, strength):
    back = import_lora(foreign(tmp_path, layers := lora_layers(), header=header), vdm)
    assert back.config.lora_alpha/back.config.r == pytest.approx(strength)
    assert abs(back.predict(x, steps=1, progress=False).images.astype(int)-answer_of(layers, strength)).max() <= 1

def test_lora_strength_beside_the_file(tmp_path):
    "peft writes it into adapter_config.json"
    file = foreign(tmp_path, lora_layers(), "peft")
    (tmp_path/"adapter_config.json").write_text(json.dumps(dict(r=2, lora_alpha=1)))
    assert import_lora(file, vdm).config.lora_alpha == 1

def test_lora_strength_layer_by_layer(tmp_path):
    "Ranks and strengths that differ are brought to one, and act as they did"
    layers = lora_layers(rank=2) | lora_layers(rank=3, only="ffn")
    meta = {"transformer.lora_alpha": 2, "transformer.r": 2, "transformer.rank_pattern": {"ffn.net.2": 3, "ffn.net.0.proj": 3}, "transformer.alpha_pattern": {"ffn.net.2": 6}}
    back = import_lora(foreign(tmp_path, layers, header=dict(lora_adapter_metadata=json.dumps(meta))), vdm)
    assert (back.config.r, back.config.lora_alpha) == (3, 3)
    for k, (a, b) in layers.items():
        strength = 2 if "ffn.net.2" in k else 2/3 if "ffn" in k else 1
        A, B = (back.state[f"{k}.lora_{p}.weight"] for p in "AB")
        assert torch.allclose(B@A, strength*b@a, atol=1e-5)

def test_lora_that_contradicts_itself(tmp_path):
    file = foreign(tmp_path, lora_layers(), header=dict(lora_adapter_metadata=json.dumps({"transformer.r": 4, "transformer.lora_alpha": 4})))
    refused(lambda: import_lora(file, vdm), file.name, "says rank 4", "rank 2", "alpha=")
    assert import_lora(file, vdm, alpha=1).config.lora_alpha == 1

@pytest.mark.parametrize("keys", [["base_model.model.nowhere.lora_A.weight"], ["nowhere.lora_A.weight"]*1, ["blocks.0.attn1.to_q.lora_A.weight"], ["blocks.0.attn1.to_q.lora_magnitude_vector"], ["lora_unet_nowhere.lora_down.weight"]])
def test_lora_that_does_not_fit(tmp_path, keys):
    "One short line, and the model is as it was"
    save_file({k: torch.zeros(2, 2) for k in keys}, tmp_path/"x.safetensors")
    e = refused(lambda: import_lora(tmp_path/"x.safetensors", vdm), "x.safetensors")
    assert len(str(e)) < len(str(tmp_path)) + 300 and not hasattr(vdm.transformer, "peft_config")
    answer_of(lora_layers(), 1)

def test_an_error_in_making_a_lora_leaves_the_model_usable():
    before = answer_of(lora_layers(), 1)
    with pytest.raises(ValueError), lora_on(vdm, lora_config(vdm, targets=["nowhere"])): pass
    assert (answer_of(lora_layers(), 1) == before).all()

def test_attention_only_adapter_is_loaded_again(tmp_path):
    config = lora_config(vdm, 2, targets=r"blocks\.\d+\.attn1\.to_[qkv]")
    with lora_on(vdm, config) as name: state = {k: v+.1 for k, v in lora_state(vdm, name).items()}
    a = Adapter(vdm, state, config=config)
    assert (load_adapter(a.save(tmp_path/"a"), vdm).predict(x, steps=1).images == a.predict(x, steps=1).images).all()

# Weights that are not finite
def nan(state): return {k: torch.full_like(v, float("nan")) for k, v in state.items()}
def test_nan_is_not_saved(adapter, tmp_path):
    bad = Adapter(vdm, nan(adapter.state), adapter.settings, adapter.config)
    refused(lambda: bad.save(tmp_path/"bad"), "bad", "NaN")
    refused(lambda: bad.export_comfy(tmp_path/"bad.safetensors"), "bad.safetensors", "NaN")
    assert not list(tmp_path.iterdir())
def test_nan_is_not_loaded(adapter, folder, tmp_path):
    with safe_open(folder/WEIGHTS, "pt") as f: header = f.metadata()
    save_file(nan(load_file(folder/WEIGHTS)), folder/WEIGHTS, metadata=header)
    describe(folder)
    refused(lambda: load_adapter(folder, vdm), WEIGHTS, "NaN")
    refused(lambda: import_lora(folder/WEIGHTS, vdm), WEIGHTS, "NaN")

# Who may read what
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_the_umask(adapter, tmp_path, mask):
    before = os.umask(mask)
    try:
        adapter.save(tmp_path/"a")
        adapter.predict(x, steps=1).save(tmp_path/"answers", videos=False)
        with pytest.raises(KeyboardInterrupt): finetune(pairs, out=tmp_path/"run", callbacks=[stop], **quick)
        adapter.export_comfy(tmp_path/"comfy.safetensors")
    finally: os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 2+3+1+1 and {p.stat().st_mode & 0o777 for p in files} == {0o666 & ~mask}

def test_weights_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        folder, model = Adapter(vdm, base_weights(vdm)).save(f"{top}/a"), f"{top}/vdm"
        vdm.transformer.save_pretrained(model)
        for file in os.listdir(model): os.chmod(f"{model}/{file}", 0 if file.endswith("safetensors") else 0o644)
        for name in (LAST, "diffusion_pytorch_model.safetensors"):
            os.chmod(folder/name, 0)
            root = os.geteuid() == 0
            if root: os.seteuid(65534)
            try:
                refused(lambda: load_adapter(folder, vdm), name, "may not be read", error=PermissionError)
                if name != LAST: refused(lambda: load_vdm(model), "safetensors", "may not be read", error=PermissionError)
            finally:
                if root: os.seteuid(0)
            os.chmod(folder/name, 0o644)

# Noise by content
def test_an_answer_does_not_depend_on_its_place(adapter):
    "Alone, in another order, among copies of itself"
    want = adapter.predict(x, samples=2, progress=False).all_images.astype(int)
    for order in ([2, 1, 0], [1], [0, 0, 1, 0]):
        got = adapter.predict(x[order], samples=2, progress=False).all_images
        assert abs(got-want[order]).max() <= 1
    assert abs(want[:, 0]-want[:, 1]).max() > 1, "samples differ"

# Pictures of any size
def test_pictures_of_any_size(adapter, capsys):
    wide = np.random.default_rng(1).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    out = adapter.predict([wide, x[0]])
    assert out.images.shape == (2, 16, 16, 3) and "20×40 are padded to 16×16" in capsys.readouterr().err
    assert (out.inputs[0, :4] == 255).all() and (out.inputs[1] == x[0]).all()
    assert adapter.predict(x).fitted == "" and capsys.readouterr().err == "", "what fits already is no news"
    for resize in ("pad", "crop", "stretch"):
        own = adapter.predict([wide, x[0]], resize=resize, keep_size=True, progress=False)
        assert [o.shape for o in own.images] == [(20, 40, 3), (16, 16, 3)] and own.resize == resize
    assert adapter.predict(x, size=24, progress=False).images.shape == (3, 24, 24, 3)
    refused(lambda: adapter.predict(x, size=10**5), "100000×100000", "nearest")

def test_the_policy_of_training_is_kept(tmp_path):
    a = finetune(pairs, resize="stretch", out=tmp_path/"a", **quick)
    assert load_adapter(a.save(tmp_path/"b"), vdm).settings["resize"] == "stretch"
    assert "stretched to 16×16" in a.predict(np.zeros((1, 20, 40, 3), np.uint8), progress=False).fitted

def test_score_of_pictures_of_another_size(adapter):
    big = Pairs(np.repeat(np.repeat(x, 2, 1), 2, 2), np.repeat(np.repeat(255-x, 2, 1), 2, 2))
    assert np.isfinite(score(adapter.predict(big, progress=False), big).psnr).all()
    assert np.isfinite(score(adapter.predict(big, keep_size=True, progress=False), big).psnr).all()

def test_heldout_pairs_of_another_size():
    "They are brought to the size of training, where the adapter will answer"
    big = Pairs(np.repeat(np.repeat(x, 2, 1), 2, 2), np.repeat(np.repeat(255-x, 2, 1), 2, 2))
    a = finetune(pairs, heldout=big, **quick)
    want = score(a.predict(big, progress=False), big).psnr.mean()
    assert abs(a.settings["best_score"]-want) < 1e-3

# Folders
def test_answers_of_an_earlier_run(adapter, tmp_path):
    adapter.predict(x, samples=3, progress=False).save(tmp_path/"a", videos=False)
    few = adapter.predict(x, samples=2, progress=False)
    refused(lambda: few.save(tmp_path/"a", videos=False), "000-3.png", "2 more", error=FileExistsError)
def test_samples_that_collide_with_an_answer(adapter, tmp_path):
    out = adapter.predict(Pairs(x, x, ["p", "p-1", "q"]), samples=2, progress=False)
    refused(lambda: out.save(tmp_path/"a"), "p-1.png", "rename")
    assert not (tmp_path/"a").exists()
def test_an_adapter_never_replaces_a_model(adapter, tmp_path):
    vdm.transformer.save_pretrained(tmp_path/"vdm")
    before = {p: p.read_bytes() for p in (tmp_path/"vdm").iterdir()}
    refused(lambda: adapter.save(tmp_path/"vdm"), "folder of a model", error=FileExistsError)
    refused(lambda: finetune(pairs, out=tmp_path/"vdm", **quick | dict(method="full")), "folder of a model", error=FileExistsError)
    assert {p: p.read_bytes() for p in (tmp_path/"vdm").iterdir()} == before
def test_weights_of_the_replaced_adapter_go(adapter, tmp_path):
    adapter.save(tmp_path/"a")
    Adapter(vdm, base_weights(vdm)).save(tmp_path/"a")
    assert sorted(p.name for p in (tmp_path/"a").iterdir()) == ["diffusion_pytorch_model.safetensors", LAST]

@pytest.mark.parametrize('name', ['tiny', 'tiny-arc'])
def test_an_adapter_finds_its_model(name, tmp_path):
    "An adapter of every packaged model is loaded by its folder alone"
    pairs = Pairs(*(np.full((1, 32, 32, 3), k, np.uint8) for k in (50, 200)))
    finetune(pairs, load_vdm(name, device='cpu'), steps=1, progress=False).save(tmp_path)
    assert load_adapter(tmp_path).vdm.name == name
