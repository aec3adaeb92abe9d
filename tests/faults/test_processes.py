"Two processes share each batch, or the weights of the model too; they end with the adapter of one process, and one of them writes the files."
import sys
import numpy as np
import pytest
import torch
from accelerate import PartialState, debug_launcher
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from small_models import small_cogvideox, small_wan
from gen2gen.fullsize import still
from gen2gen.pairs import Pairs
from gen2gen.registry import load_vdm
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import finetune

def train(x, folder):
    vdm = Tiny(random_transformer(0, num_layers=1), device="cpu", dtype=torch.float32, revision="random-0")
    return finetune(Pairs(x, 255-x), vdm, heldout=Pairs(x, x), steps=3, batch_size=4, out=folder, save_every=1, progress=False)

def work(folder, x):
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # a forked process inherits that its parent was alone
    adapter = train(x, f"{folder}/run")
    assert adapter.settings["processes"] == 2
    save_file(adapter.state, f"{folder}/{PartialState().process_index}.safetensors")

def test_two_processes(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    debug_launcher(work, (tmp_path, x), 2)
    a, b = (load_file(tmp_path/f"{i}.safetensors") for i in (0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a) and any(v.any() for k, v in a.items() if "lora_B" in k)
    assert sorted(p.name for p in (tmp_path/"run").iterdir()) == ["gen2gen.json", "pytorch_lora_weights.safetensors"]
    alone = train(x, None)
    assert alone.settings["processes"] == 1
    # AdamW divides by the root of tiny moments, so rounding shows in the fourth decimal; other noise would show in the first
    for k, v in alone.state.items(): assert (a[k]-v).norm() <= 1e-3*v.norm()+1e-6, k

def train_sharded(x, folder, shard):
    vdm = load_vdm(folder/"model", device="cpu", dtype=torch.float32, checkpointing=True, shard=shard)
    vdm.cache_latents = False
    adapter = finetune(Pairs(x, 255-x), vdm, heldout=Pairs(x[:1], x[:1]), n_frames=vdm.frames(5), steps=3, batch_size=4, rank=2, out=folder/"run" if shard else None, save_every=1, progress=False)
    return vdm, adapter, adapter.predict(x[:1], steps=2, progress=False).videos

def work_sharded(folder, x):
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    vdm, adapter, videos = train_sharded(x, folder, True)
    vdm.transformer.reshard()  # what lies outside of the blocks stays gathered after a forward pass
    weights = list(vdm.transformer.parameters())
    ours, all_ = (sum(f(p).numel() for p in weights) for f in (lambda p: p.to_local(), lambda p: p))
    with pytest.raises(ValueError, match="method='full' would train them"): finetune(Pairs(x, x), vdm, method="full", steps=1, progress=False)
    save_file(adapter.state | dict(videos=torch.from_numpy(videos).contiguous(), share=torch.tensor(ours/all_)), f"{folder}/{PartialState().process_index}.safetensors")

@pytest.mark.parametrize("pipeline", [lambda: small_wan("ti2v"), small_cogvideox], ids=["wan", "cogvideox"])
def test_sharded_weights(tmp_path, pipeline):
    "FSDP2 of the frozen weights by two processes: each holds half of them, and adapter and videos are those of one process that holds all"
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    with still(): pipeline().save_pretrained(tmp_path/"model")
    debug_launcher(work_sharded, (tmp_path, x), 2)
    a, b = (load_file(tmp_path/f"{i}.safetensors") for i in (0, 1))
    assert all(.4 < o["share"] < .6 for o in (a, b)) and all(torch.equal(a[k], b[k]) for k in a if k != "share")
    assert sorted(p.name for p in (tmp_path/"run").iterdir()) == ["gen2gen.json", "pytorch_lora_weights.safetensors"]
    _, alone, videos = train_sharded(x, tmp_path, False)
    for k, v in alone.state.items(): assert (a[k]-v).norm() <= 1e-3*v.norm()+1e-6, k
    assert np.abs(a["videos"].numpy().astype(int)-videos).max() <= 1

def test_sharding_that_cannot_be(tmp_path):
    with still(): small_wan("moe").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has two experts"): load_vdm(tmp_path, device="cpu", shard=True)
    with pytest.raises(ValueError, match="does not go with quantization"): load_vdm(tmp_path, device="cpu", shard=True, quantization=object())
    with still(): small_wan("ti2v").save_pretrained(tmp_path/"one")
    with pytest.raises(ValueError, match="accelerate launch --num_processes 2"): load_vdm(tmp_path/"one", device="cpu", shard=True)

def test_more_processes_than_pairs(tmp_path, monkeypatch):
    module = sys.modules["gen2gen.train"]
    x = np.zeros((1, 16, 16, 3), np.uint8)
    class Two(module.Accelerator):
        num_processes = 2
    monkeypatch.setattr(module, "Accelerator", Two)
    with pytest.raises(ValueError, match="less than one pair for each of 2 processes"):
        finetune(Pairs(x, x), Tiny(random_transformer(0, num_layers=1), device="cpu"), batch_size=1, steps=1, progress=False)
