"What is refused before or while a full-size pipeline is loaded, the options that save memory, adapters taking turns, and the memory estimate."
import json, shutil
import numpy as np
import pytest
import torch

from conftest import random_adapter, seeded
from gen2gen import cogvideox, ltx, memory, wan
from gen2gen.adapter import load_adapter, lora_config, lora_on
from gen2gen.fullsize import hub_folder, still
from gen2gen.pairs import Pairs
from gen2gen.registry import VDMS, load_vdm
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import finetune
from small_models import small_cogvideox, small_ltx, small_wan

CPU = dict(device="cpu", dtype=torch.float32)

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fullsize")/"small"
    with still(): small_wan("moe").save_pretrained(path, max_shard_size="40KB")
    return path

@pytest.fixture
def copy(folder, tmp_path): return shutil.copytree(folder, tmp_path/"copy")

@pytest.fixture(scope="module")
def vdm(folder): return load_vdm(folder, **CPU)

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch): monkeypatch.setenv("GEN2GEN_CACHE", str(tmp_path/"cache"))

def pictures(n=1): return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)

# a folder that is not whole
def test_sharded_folder_loads(folder, vdm): assert len(list((folder/"transformer").glob("*.safetensors"))) > 1 and len(vdm.experts) == 2

def test_missing_shard(copy):
    shard = sorted((copy/"transformer_2").glob("*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is missing, though .*index.json names it"): load_vdm(copy, **CPU)

@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"<html>not found</html>", lambda b: b+b"0"], ids=["cut", "empty", "html", "long"])
def test_corrupt_shard(copy, damage):
    shard = sorted((copy/"transformer").glob("*.safetensors"))[0]
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(ValueError, match=f"{shard.name} is not a whole safetensors file"): load_vdm(copy, **CPU)

def test_pickle(copy):
    for f in (copy/"vae").glob("*.safetensors*"): f.rename(f.with_suffix(".bin")) if f.suffix == ".safetensors" else f.unlink()
    with pytest.raises(ValueError, match="a pickle; gen2gen reads safetensors only"): load_vdm(copy, **CPU)

@pytest.mark.parametrize("part", ["text_encoder", "vae", "transformer"])
def test_missing_part(copy, part):
    shutil.rmtree(copy/part)
    with pytest.raises(FileNotFoundError, match=f"{part} is missing, though model_index.json names it"): load_vdm(copy, **CPU)

def test_damaged_index(copy):
    (copy/"model_index.json").write_text("{")
    with pytest.raises(ValueError, match="model_index.json is damaged"): load_vdm(copy, **CPU)

def test_unknown_pipeline(copy):
    (copy/"model_index.json").write_text(json.dumps(dict(_class_name="FluxPipeline")))
    with pytest.raises(ValueError, match="holds a FluxPipeline, which no registered VDM family loads"): load_vdm(copy, **CPU)

def test_text_to_video(tmp_path):
    with still(): small_wan("moe", in_channels=4).save_pretrained(tmp_path/"t2v")
    with pytest.raises(ValueError, match="text-to-video model. Take an image-to-video one: wan2.2-ti2v-5b"): load_vdm(tmp_path/"t2v", **CPU)

# what a model cannot do
def test_illegal_frames_and_size(vdm):
    pairs = Pairs(pictures(), pictures())
    with pytest.raises(ValueError, match="cannot make videos of 7 frames; the nearest it can is 9"): finetune(pairs, vdm, n_frames=7, progress=False)
    with pytest.raises(ValueError, match=r"nearest it can is 48×32: load the pairs with size=\(48, 32\)"): vdm.sample(np.zeros((1, 44, 32, 3), np.uint8))

def test_no_cuda(folder):
    if torch.cuda.is_available(): pytest.skip("there is CUDA here")
    with pytest.raises(ValueError, match="device 'cuda' cannot be used here"): load_vdm(folder, device="cuda")

def test_loss_that_is_not_finite(vdm, tmp_path):
    "The run stops, says where, and keeps the weights of before"
    weights = [t.proj_out.weight for t in vdm.experts.values()]
    kept = [w.detach().clone() for w in weights]
    def spoil(event):
        for w in weights: w.data[0] = float("nan")
    try:
        with pytest.raises(FloatingPointError, match="step 2: the loss is nan") as e:
            finetune(Pairs(pictures(), pictures()), vdm, n_frames=5, steps=3, batch_size=4, rank=2, callbacks=[spoil], progress=False)
    finally:
        for w, k in zip(weights, kept): w.data.copy_(k)
    assert all(v.isfinite().all() for v in e.value.adapter.state.values())

def test_tiny_takes_no_options():
    with pytest.raises(ValueError, match="tiny takes no preset"): load_vdm("tiny", preset="paper")
    with pytest.raises(ValueError, match="tiny knows no word 'a'"): load_vdm("tiny", prompt="a")

# the hub
@pytest.fixture
def hub(folder, tmp_path):
    shutil.copytree(folder, tmp_path/"hub/models--owner--small/snapshots"/("a"*40))
    (tmp_path/"hub/models--owner--small/refs").mkdir()
    (tmp_path/"hub/models--owner--small/refs/main").write_text("a"*40)
    return tmp_path/"hub"

def test_cached_model_is_used_without_network(hub, monkeypatch):
    import huggingface_hub.constants
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert hub_folder("owner/small", cache_dir=hub).name == hub_folder("owner/small", download=True, cache_dir=hub).name == "a"*40

def test_short_name_is_a_commit(monkeypatch):
    asked = []
    def hub_folder(repo, revision, download): asked.append((repo, revision)); raise FileNotFoundError
    monkeypatch.setattr("gen2gen.fullsize.hub_folder", hub_folder)
    for how in (dict(), dict(revision="main")):
        with pytest.raises(FileNotFoundError): load_vdm("wan2.2-ti2v-5b", preset=80, **how)
    with pytest.raises(FileNotFoundError): load_vdm("owner/other")
    entry = VDMS["wan2.2-ti2v-5b"]
    assert asked == [(entry.hub, entry.revision), (entry.hub, "main"), ("owner/other", None)] and len(entry.revision) == 40

def test_commit_goes_with_the_adapter(hub, vdm, tmp_path, monkeypatch):
    "The model says which commit it is; an adapter of it asks for that commit, and is not refused by a copy that has none"
    snapshot = hub/"models--owner--small/snapshots"/("a"*40)
    known = load_vdm(snapshot, **CPU)
    assert known.fingerprint["commit"] == "a"*40 and known.revision == vdm.revision and "commit" not in vdm.fingerprint
    random_adapter(known, n_frames=5).save(tmp_path/"a")
    assert load_adapter(tmp_path/"a", vdm).vdm is vdm
    asked = []
    def load(name, **kwargs): asked.append(kwargs); return known
    monkeypatch.setattr("gen2gen.adapter.load_vdm", load)
    assert load_adapter(tmp_path/"a").vdm is known and asked[0] == dict(prompt="", revision="a"*40, download=False)

def test_absent_revision(hub):
    with pytest.raises(FileNotFoundError, match="owner/small@v2 is not in the local cache; the cache has the revisions a{40}"): hub_folder("owner/small", "v2", cache_dir=hub)

def test_no_network(hub, monkeypatch):
    import huggingface_hub.constants
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="owner/other could not be fetched .*no network"): hub_folder("owner/other", download=True, cache_dir=hub)
    with pytest.raises(FileNotFoundError, match="not in the local cache: load_vdm"): load_vdm("owner/other")

# options
def test_checkpointing_and_compile_change_nothing(folder):
    x = pictures(2)
    def gradient(**options):
        vdm = load_vdm(folder, **CPU, **options)
        latents, cond = vdm.encode(np.stack([x]*5, 1)), vdm.condition(x, 5)
        with lora_on(vdm, lora_config(vdm, 2)):
            vdm.loss(latents, cond, seeded(0)).mean().backward()
            return {k: p.grad.clone() for k, p in vdm.transformer.named_parameters() if p.grad is not None}
    plain = gradient()
    assert any(g.abs().max() > 0 for g in plain.values())
    for options in (dict(checkpointing=True), dict(compile=dict(backend="eager"))):
        for k, g in gradient(**options).items(): assert torch.allclose(g, plain[k.replace("._orig_mod", "")], rtol=1e-4, atol=1e-7), (options, k)

def test_fp8_trains(folder):
    vdm = load_vdm(folder, **CPU, fp8=True)
    assert any(p.dtype == torch.float8_e4m3fn for p in vdm.transformer.parameters())
    adapter = finetune(Pairs(pictures(), pictures()), vdm, n_frames=5, steps=2, batch_size=2, rank=2, progress=False)
    assert all(v.isfinite().all() and v.dtype == torch.float32 for v in adapter.state.values()) and np.isfinite(adapter.settings["losses"]).all()

def test_offload_changes_nothing(folder, vdm):
    x, seed = pictures(), lambda: seeded(0)
    other = load_vdm(folder, **CPU, offload=True)
    assert np.array_equal(vdm.sample(x, seed(), steps=2, n_frames=5), other.sample(x, seed(), steps=2, n_frames=5))

def test_float32_lora_on_a_bfloat16_base(folder):
    vdm = load_vdm(folder, device="cpu", dtype=torch.bfloat16)
    adapter = finetune(Pairs(pictures(), pictures()), vdm, n_frames=5, steps=2, batch_size=2, rank=2, progress=False)
    assert {v.dtype for v in adapter.state.values()} == {torch.float32} and vdm.transformer.proj_out.weight.dtype == torch.bfloat16
    assert adapter.predict(pictures(), steps=2, progress=False).images.shape == (1, 32, 32, 3)

# adapters
def test_adapters_take_turns(vdm):
    "Over one loaded base, in any order, with the same pictures; the base stays as it was"
    base = {k: v.clone() for k, v in vdm.transformer.state_dict().items()}
    adapters = [random_adapter(vdm, n_frames=5, seed=s) for s in range(3)]
    answer = lambda a: a.predict(pictures(), steps=2, progress=False).images
    first = [answer(a) for a in adapters]
    assert not np.array_equal(first[0], first[1])
    for i in (2, 0, 1, 0): assert np.array_equal(answer(adapters[i]), first[i])
    after = vdm.transformer.state_dict()
    assert base.keys() == after.keys() and all(torch.equal(base[k], after[k]) for k in base)

class Counted:
    "A compiler that leaves the code as it is and counts the times it is called"
    n = 0
    def __call__(self, graph, inputs): self.n += 1; return graph.forward

def compiled(family, backend):
    "A small model of each family, its block compiled"
    if family == "tiny":
        vdm = Tiny(random_transformer(0, num_layers=1), device="cpu", dtype=torch.float32, revision="random-0")
        vdm.block = torch.compile(vdm.block, backend=backend)
        return vdm
    cls, pipe = dict(wan=(wan.Wan, lambda: small_wan("moe")), cogvideox=(cogvideox.CogVideoX, small_cogvideox), ltx=(ltx.LTX, small_ltx))[family]
    with still(), torch.no_grad(): text = (pipe := pipe()).encode_prompt("", do_classifier_free_guidance=False)
    return cls(pipe, text, dtype=torch.float32).prepare(compile=dict(backend=backend))

@pytest.mark.parametrize("family", ["tiny", "wan", "cogvideox", "ltx"])
def test_next_adapter_compiles_nothing(family, tmp_path):
    "Train A, predict, train B, predict, load A, predict: all that is compiled is compiled for A. Another rank is compiled again, so the count is alive"
    torch._dynamo.reset()
    counted = Counted()
    vdm, x = compiled(family, counted), pictures(2)
    predict = lambda a: a.predict(x[:1], steps=2, progress=False).images
    def learn(**kwargs): return finetune(Pairs(x[:1], x[1:]), vdm, n_frames=vdm.frames(9), steps=1, batch_size=2, lr=1e-2, progress=False, **kwargs)
    a = learn(rank=2)
    of_a, first = predict(a), counted.n
    of_b = predict(learn(rank=2, seed=1))
    again = predict(load_adapter(a.save(tmp_path/"a"), vdm))
    assert counted.n == first > 0
    assert np.array_equal(of_a, again) and not np.array_equal(of_a, of_b)
    if family == "tiny": assert predict(learn(rank=3)).any() and counted.n > first
    torch._dynamo.reset()

def test_adapter_of_two_experts_on_disk(vdm, tmp_path, folder):
    a = random_adapter(vdm, n_frames=5)
    a.save(tmp_path/"a")
    assert np.array_equal(load_adapter(tmp_path/"a", vdm).predict(pictures(), steps=2, progress=False).images, a.predict(pictures(), steps=2, progress=False).images)
    with pytest.raises(ValueError, match="was trained with prompt=''"): load_adapter(tmp_path/"a", load_vdm(folder, **CPU, prompt="a cat"))
    second = tmp_path/"a/pytorch_lora_weights_2.safetensors"
    second.write_bytes((tmp_path/"a/pytorch_lora_weights.safetensors").read_bytes())
    with pytest.raises(ValueError, match="_2.safetensors is not the file that"): load_adapter(tmp_path/"a", vdm)

def test_random_control(folder):
    a, b = (load_vdm(folder, **CPU, pretrained=False, seed=s) for s in (0, 1))
    assert a.revision == "random-0" and not torch.equal(a.transformer.proj_out.weight, b.transformer.proj_out.weight)
    assert torch.equal(a.vae.decoder.conv_out.weight, b.vae.decoder.conv_out.weight)

# memory
def test_too_little_memory_is_told_before_the_cache_is_asked(monkeypatch):
    monkeypatch.setattr("gen2gen.fullsize.hub_folder", lambda *a: pytest.fail("the hub was asked"))
    with pytest.raises(ValueError, match="wan2.2-i2v-a14b, .* do not fit in 24 GB; the nearest that does: "): load_vdm("wan2.2-i2v-a14b", preset=24)
    with pytest.raises(ValueError, match="there are 24, 40, 80"): load_vdm("wan2.2-ti2v-5b", preset=16)
    monkeypatch.setattr(memory, "device_gb", lambda d: 6.)
    with pytest.raises(ValueError, match="do not fit in 6 GB; no full-size model does: use tiny"): load_vdm("wan2.2-ti2v-5b", device="cpu")

def test_published_sizes():
    "The weights that the names promise"
    for name, billions in {"wan2.2-ti2v-5b": 5., "wan2.1-i2v-14b": 16.4, "wan2.2-i2v-a14b": 28.6}.items():
        assert abs(memory.estimate(name).weights/2e9-billions) < .3, name

@pytest.mark.parametrize("name", [k for k, v in VDMS.items() if v.hub])
def test_every_model_has_an_estimate(name):
    plain, less = memory.estimate(name), memory.estimate(name, options=("checkpointing", "offload", "fp8"))
    assert plain.total > less.total > 2e9 and plain.activations > 3*less.activations > 0
