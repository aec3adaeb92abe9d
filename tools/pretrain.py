"""Make the weights of `tiny` from nothing, in pieces: first the codec, then the transformer. Or those of `tiny-arc`.

    python tools/pretrain.py RUN --world PHOTOGRAPHS --minutes 9
    python tools/pretrain.py RUN --puzzles rearc.tar.xz --minutes 9
    torchrun --nproc_per_node 2 tools/pretrain.py RUN --puzzles rearc.tar.xz --minutes 9      # shared by two processes

Call it again with the same RUN and it goes on where it was, also after a kill. RUN/weights is a model folder after
every piece: `g.load_vdm('RUN/weights')`. PHOTOGRAPHS is a folder or zip of pictures and videos, see the notebook
`10_bank`. On an accelerator clips are made there too, a batch holds `--scale` times as many, and the codec takes as many
pictures more."""
import argparse, json, os, time
from pathlib import Path
import torch
import torch.distributed as dist
from gen2gen.bank import load_bank
from gen2gen.codec import load_codec, save_codec
from gen2gen.codec_training import train_codec
from gen2gen.pretrain import SHAPES, SHARES, World, export_weights, pretrain, seen
from gen2gen.rearc import SHOWN_RULES, SHOWN_TASKS, Training, load_rearc, task_pairs
from gen2gen.rules import made_pairs, save_pairs
from stock import Stock

def options():
    "What the command takes"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path, help='folder of the run: state, logs, weights')
    p.add_argument('--world', help='folder or zip of photographs and videos; left out: twelve that packages ship')
    p.add_argument('--puzzles', help='archive of RE-ARC, or "own" for ARC-AGI-1\'s own pairs: make tiny-arc')
    p.add_argument('--rules', type=int, default=0, help='pairs of each rule of ours; they start half of the batches')
    p.add_argument('--minutes', type=float, default=9, help='length of this piece')
    p.add_argument('--steps', type=int, default=10**9, help='last step of the transformer, if the minutes allow')
    p.add_argument('--codec', type=Path, help='codec folder to take as it is, instead of training one')
    p.add_argument('--codec-steps', type=int, default=1200, help='updates of the codec')
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--scale', type=int, help='times the clips of a batch; left out: 1 on a CPU, 20 elsewhere')
    p.add_argument('--workers', type=int, default=0, help='processes that make batches ahead, on spare cores')
    p.add_argument('--producers', type=int, default=0, help='processes that fill a stock of clips on the accelerator')
    p.add_argument('--decay', type=float, default=0, help='share of --steps over which the rate falls; 0: it stays')
    p.add_argument('--init', help='model folder whose weights a new run starts from; it has the codec of --codec')
    p.add_argument('--snapshots', type=int, nargs='*', default=(), help='steps whose weights stay in RUN/step-N')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--lr', type=float, default=8e-3, help='of Muon')
    p.add_argument('--adam-lr', type=float, default=2e-3)
    p.add_argument('--layers', type=int, default=6, help='blocks of the transformer')
    p.add_argument('--eager', action='store_true', help='do not compile')
    p.add_argument('--small', action='store_true', help='pictures of 32 px and few of them: to try the command')
    o = p.parse_args()
    if o.rules and not o.puzzles: p.error('--rules are for tiny-arc: give --puzzles too')
    return o

def codec_of(o, bank, scale):
    "The codec of a run, trained if it is not there yet; None if the minutes were over before"
    folder, size, batch = o.codec or o.run/'codec', 64, 32*min(scale, 8)
    if o.small: size, batch = 32, 16
    if not (folder/'config.json').is_file():
        network = train_codec(o.run/'codec-run', o.codec_steps, bank=bank, batch=batch, size=size, seed=o.seed,
                              device=o.device, minutes=o.minutes)
        if network is None: return None
        save_codec(network, folder)
    return load_codec(folder, device=o.device)

def puzzles_of(o, scale):
    "The batches of tiny-arc. Examples of our own rules are made once, in RUN/rules.tar.xz"
    pairs, file = task_pairs(None if o.puzzles == 'own' else o.puzzles), o.run/'rules.tar.xz'
    if not o.rules: return Training(pairs, scale)
    first = not dist.is_initialized() or dist.get_rank() == 0
    if first and not file.is_file(): save_pairs(made_pairs(o.rules, o.seed), file)
    if dist.is_initialized(): dist.barrier()
    made = load_rearc(file)
    return Training({**pairs, **made}, scale, dict.fromkeys(made, len(pairs)/len(made)))

def end(o, vdm, **about):
    "Weights of a run, and the last line of its log"
    if dist.is_initialized() and dist.get_rank() > 0: return
    if not (o.run/'log.jsonl').is_file(): return print('no step was done: call again', flush=True)
    last = json.loads((o.run/'log.jsonl').read_text().splitlines()[-1])
    export_weights(vdm, o.run/'weights', last['step'], o.seed, **about)
    print(f'{last["step"]} steps, the last: {last}', flush=True)

def main():
    o, began = options(), time.monotonic()
    if int(os.environ.get('WORLD_SIZE', 1)) > 1: dist.init_process_group('gloo' if o.device == 'cpu' else 'nccl')
    scale = o.scale or (1 if o.device == 'cpu' else 20)
    def run(minutes, **batches):
        changes = {} if o.init else dict(num_layers=o.layers)
        return pretrain(o.run, o.steps, o.lr, o.adam_lr, decay=o.decay, seed=o.seed, device=o.device, minutes=minutes,
                        workers=o.workers, compile=not o.eager, save_every=100 if o.device == 'cpu' else 1000,
                        init=o.init, snapshots=o.snapshots, **changes, **batches)
    if o.puzzles:
        vdm = run(o.minutes, batch=puzzles_of(o, scale))
        return end(o, vdm, name='tiny-arc', shown=SHOWN_RULES*bool(o.rules)+SHOWN_TASKS)
    bank = load_bank(o.world, device=o.device)
    codec = codec_of(o, bank, scale)
    if codec is None: return print('the codec is not done: call again', flush=True)
    minutes = o.minutes-(time.monotonic()-began)/60
    print(f'{bank}, {codec}, {minutes:.1f} minutes left', flush=True)
    shapes, shares = (((32, 2, 8),), (1.,)) if o.small else (SHAPES, SHARES)
    world = World(codec, bank, scale, shapes=shapes, shares=shares)
    if o.producers:
        drawn = World(None, bank.to('cpu'), 3*scale, group=2, shapes=shapes, shares=shares)
        with Stock(drawn, o.codec or o.run/'codec', o.device, o.producers, scale, seed=time.time_ns() % 10**6) as stock:
            vdm = run(minutes, batch=world, stock=stock)
            print(f'{stock.delivered:,} clips were made', flush=True)
    else: vdm = run(minutes, batch=world)
    end(o, vdm, shown=seen(bank))

if __name__ == '__main__': main()
