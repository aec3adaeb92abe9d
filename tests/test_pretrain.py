"Pretraining that is killed at any moment and resumed ends with the same bits."
import os, signal, subprocess, sys, time
from safetensors.torch import load_file
import torch

CODE = '''
import sys, torch
from functools import partial
from gen2gen.pretrain import pretrain, pretraining_batch
torch.set_num_threads(1)
pretrain(sys.argv[1], steps=8, save_every=1, compile=False, batch=partial(pretraining_batch, kinds=["mirror", "pan"]), num_layers=1, attention_head_dim=24, num_attention_heads=2, ffn_dim=32)
'''

def start(out): return subprocess.Popen([sys.executable, '-c', CODE, str(out)], env={**os.environ, 'OMP_NUM_THREADS': '1'})

def test_killed_and_resumed_is_the_same(tmp_path):
    assert start(tmp_path/'whole').wait(120) == 0
    for wait in (.0, .12):
        p = start(tmp_path/'killed')
        log = tmp_path/'killed'/'log.jsonl'; lines = len(log.read_text().splitlines()) if log.exists() else 0
        while p.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > lines): time.sleep(.01)
        time.sleep(wait); p.send_signal(signal.SIGKILL); p.wait()
    assert start(tmp_path/'killed').wait(120) == 0
    whole, killed = (load_file(tmp_path/d/'state.safetensors') for d in ('whole', 'killed'))
    assert whole.keys() == killed.keys()
    for name in whole: assert torch.equal(whole[name], killed[name]), name
