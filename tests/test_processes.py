"Two processes share each batch, end with the same weights as one process would, and one of them writes the files."
import sys
import numpy as np
import pytest
import torch
from accelerate import PartialState, debug_launcher
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from gen2gen.finetune import finetune
from gen2gen.pairs import Pairs
from gen2gen.tiny import Tiny, random_transformer

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

def test_more_processes_than_pairs(tmp_path, monkeypatch):
    module = sys.modules["gen2gen.finetune"]  # the package's attribute of this name is the function
    x = np.zeros((1, 16, 16, 3), np.uint8)
    class Two(module.Accelerator):
        num_processes = 2
    monkeypatch.setattr(module, "Accelerator", Two)
    with pytest.raises(ValueError, match="less than one pair for each of 2 processes"):
        finetune(Pairs(x, x), Tiny(random_transformer(0, num_layers=1), device="cpu"), batch_size=1, steps=1, progress=False)
