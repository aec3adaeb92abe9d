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

def test_command_in_pieces(tmp_path, root):
    "`tools/pretrain.py` makes codec and model, and a second call goes on where the first ended"
    import gen2gen as g
    command = [sys.executable, root/'tools'/'pretrain.py', tmp_path, '--small', '--eager', '--layers', '1', '--codec-steps', '2', '--device', 'cpu']
    for steps in (2, 3):
        done = subprocess.run([*command, '--steps', str(steps)], env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert f'{steps} steps, the last:' in done.stdout
    vdm = g.load_vdm(tmp_path/'weights', device='cpu')
    assert vdm.codec and 'mirror' in vdm.vocabulary and vdm.size(64, 64) == (64, 64)
