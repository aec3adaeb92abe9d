"Pretraining that is killed at any moment and resumed ends with the same bits."
import json, os, signal, subprocess, sys, time
from functools import partial
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from conftest import LIMIT

CODE = '''
import sys, torch
from functools import partial
from gen2gen.pretrain import pretrain, pretraining_batch
torch.set_num_threads(1)
pretrain(sys.argv[1], steps=8, save_every=1, compile=False, batch=partial(pretraining_batch, kinds=["mirror", "pan"]),
         num_layers=1, attention_head_dim=24, num_attention_heads=2, ffn_dim=32)
'''

def start(out):
    return subprocess.Popen([sys.executable, '-c', CODE, str(out)], env={**os.environ, 'OMP_NUM_THREADS': '1'})

def lines_of(log): return len(log.read_text().splitlines()) if log.exists() else 0

def test_killed_and_resumed_is_the_same(tmp_path):
    assert start(tmp_path/'whole').wait(LIMIT) == 0
    for wait in (.0, .12):
        p = start(tmp_path/'killed')
        log = tmp_path/'killed'/'log.jsonl'
        lines = lines_of(log)
        while p.poll() is None and lines_of(log) <= lines: time.sleep(.01)
        time.sleep(wait)
        p.send_signal(signal.SIGKILL)
        p.wait()
    assert start(tmp_path/'killed').wait(LIMIT) == 0
    steps = [json.loads(line)['step'] for line in (tmp_path/'killed'/'log.jsonl').read_text().splitlines()]
    assert steps == [*range(1, 9)]  # none twice, though a kill leaves the log ahead of the state
    whole, killed = (load_file(tmp_path/d/'state.safetensors') for d in ('whole', 'killed'))
    assert whole.keys() == killed.keys()
    for name in whole: assert torch.equal(whole[name], killed[name]), name

SMALL = dict(encoder_block_out_channels=(32, 32, 32), decoder_block_out_channels=(32, 32, 32), latent_channels=8,
             encoder_layers_per_block=(0, 1, 1), decoder_layers_per_block=(0, 1, 1))

def test_codec_killed_and_resumed_is_the_same(tmp_path, monkeypatch):
    "A codec's run that is stopped between two updates ends with the bits of one that was not"
    from gen2gen import codec_training
    from gen2gen.codec import random_autoencoder
    def run(out):
        network = random_autoencoder(**SMALL)
        return codec_training.train_codec(out, 5, network=network, batch=16, size=32, save_every=1)
    whole, step = run(tmp_path/'whole'), codec_training.codec_step
    def fails(*args):
        if len(done) == 3: raise KeyboardInterrupt
        done.append(step(*args))
    done = []
    monkeypatch.setattr(codec_training, 'codec_step', fails)
    with pytest.raises(KeyboardInterrupt): run(tmp_path/'killed')
    monkeypatch.setattr(codec_training, 'codec_step', step)
    for a, b in zip(whole.parameters(), run(tmp_path/'killed').parameters()): assert torch.equal(a, b)

def test_a_loss_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    "Where losses are read some steps later, as on an accelerator, they are read before a state is written"
    from gen2gen import pretrain as module
    step = module.pretraining_step
    def broken(*args): return step(*args)*(float('nan') if len(calls) == 3 or calls.append(1) else 1.)
    calls, small = [], dict(num_layers=1, attention_head_dim=24, num_attention_heads=2, ffn_dim=32)
    monkeypatch.setattr(module, 'pretraining_step', broken)
    batch = partial(module.pretraining_batch, kinds=['mirror'])
    with pytest.raises(FloatingPointError, match='step 4'):
        module.pretrain(tmp_path, 6, batch=batch, save_every=2, log_every=20, compile=False, **small)
    with safe_open(tmp_path/'state.safetensors', 'pt') as f: assert f.metadata()['step'] == '2'

def test_command_in_pieces(tmp_path, root):
    "`tools/pretrain.py` makes codec and model, goes on where it ended, and starts anew from what it made, with a stock"
    import gen2gen as g
    options = '--small --eager --layers 1 --codec-steps 2 --device cpu'.split()
    command = [sys.executable, root/'tools'/'pretrain.py', tmp_path, *options]
    for steps in (2, 3):
        done = subprocess.run([*command, '--steps', str(steps)], env={**os.environ, 'OMP_NUM_THREADS': '1'},
                              capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        assert f'{steps} steps, the last:' in done.stdout
    vdm = g.load_vdm(tmp_path/'weights', device='cpu')
    assert vdm.codec and 'mirror' in vdm.vocabulary and vdm.size(64, 64) == (64, 64)
    more = [sys.executable, root/'tools'/'pretrain.py', tmp_path/'more', *options, '--init', tmp_path/'weights',
            '--codec', tmp_path/'codec', '--producers', '1', '--steps', '2', '--decay', '.5', '--snapshots', '1']
    done = subprocess.run([*map(str, more)], env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True,
                          timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert 'clips were made' in done.stdout and '2 steps, the last:' in done.stdout
    assert g.load_vdm(tmp_path/'more'/'step-1', device='cpu').revision != vdm.revision

SHARED = """
import sys, torch
import torch.distributed as dist
from gen2gen.pretrain import pretrain
torch.set_num_threads(1)
def half(step, seed):
    g = torch.Generator().manual_seed(step)
    z, eps = torch.randn(2, 2, 12, 2, 8, 8, generator=g)
    return z, torch.rand(2, generator=g), eps, ['noise']*2
def whole(step, seed):
    parts = zip(half(2*step, seed), half(2*step+1, seed))
    return tuple(a+b if isinstance(a, list) else torch.cat([a, b]) for a, b in parts)
alone = sys.argv[2] == 'alone'
if not alone: dist.init_process_group('gloo')
small = dict(num_layers=1, attention_head_dim=24, num_attention_heads=2, ffn_dim=32)
pretrain(sys.argv[1], 3, lr=1e-3, adam_lr=1e-3, batch=whole if alone else half, compile=False, **small)
"""

def test_two_processes_learn_what_one_learns_from_both_batches(tmp_path):
    "Each has batches of its own, and they step with the mean gradient; one of them writes"
    (tmp_path/'shared.py').write_text(SHARED)
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    for start, how in (([sys.executable], 'alone'), ([*torchrun, '--standalone'], 'two')):
        done = subprocess.run([*start, tmp_path/'shared.py', tmp_path/how, how], capture_output=True, text=True,
                              env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path/how/'state.safetensors') for how in ('alone', 'two'))
    # AdamW divides by the root of tiny moments, so rounding shows
    for name in (n for n in one if n.startswith('model.')):
        assert (one[name]-two[name]).norm() <= 1e-3*one[name].norm()+1e-6, name
    assert lines_of(tmp_path/'two'/'log.jsonl') == 3

def test_command_makes_tiny_arc(tmp_path, root):
    "`tools/pretrain.py --puzzles` needs no archive, goes on where it ended, and leaves a model that a folder loads"
    import gen2gen as g
    command = [sys.executable, root/'tools'/'pretrain.py', tmp_path, *'--puzzles own --eager --layers 1 --device cpu'.split()]
    for steps in (1, 2):
        done = subprocess.run([*command, '--steps', str(steps)], env={**os.environ, 'OMP_NUM_THREADS': '1'},
                              capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        assert f'{steps} steps, the last:' in done.stdout
    vdm = g.load_vdm(tmp_path/'weights', device='cpu')
    assert vdm.name == 'tiny-arc' and {'0ca9ddb6', 'turn 7', 'colours 15'} <= {*vdm.vocabulary}
