"""Measure full-size models on a card: what they need, how fast they are, whether a killed run goes on.

    python tools/card.py card.jsonl                        # all models, each with every set of options that fits
    python tools/card.py card.jsonl --models ltx-2b --minutes 9
    python tools/card.py card.jsonl --small --device cpu   # the same code, models a thousand times smaller

Nothing is downloaded. Each model is built on the device at its full configuration with random weights, and the prompt
is random numbers in the shape of its embedding. A case is one model with one set of options, and one line of the file:
encoding, ten training steps, prediction of one picture, a run that is stopped and goes on, an adapter saved and loaded.
The line is written when the case is done, so call it again after a kill: what is in the file is not measured again.
A case that fails, for lack of memory or else, has a line with its error. The 8-bit optimizers that others offer are not
tried: only LoRA is trained, and `lora_gb` says how little its weights and moments take."""
import argparse, json, math, statistics, tempfile, time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch, transformers
from diffusers import CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.training_utils import free_memory
from gen2gen import memory
from gen2gen.adapter import load_adapter
from gen2gen.devices import device_gb, native_dtype, usable
from gen2gen.evaluate import machine, versions
from gen2gen.files import whole
from gen2gen.fullsize import still
from gen2gen.memory import FAMILIES, GB, PRESETS, SETS, estimate, fits, native_size, operations
from gen2gen.pairs import Pairs
from gen2gen.train import finetune
from gen2gen.transitions import make_videos

# What differs from the published configurations with --small
_WAN = dict(num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=3)
_WAN_VAE = dict(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.]*4, latents_std=[1.]*4)
_A14B = _WAN | dict(in_channels=12, out_channels=4)
_COG = dict(num_attention_heads=4, attention_head_dim=16, in_channels=8, out_channels=4, num_layers=3,
            time_embed_dim=32, text_embed_dim=16, max_text_seq_length=8)
_COG_VAE = dict(block_out_channels=(8,)*4, layers_per_block=1, norm_num_groups=1, latent_channels=4)
_LTX = dict(num_attention_heads=4, attention_head_dim=16, cross_attention_dim=64, num_layers=3, caption_channels=16,
            in_channels=8, out_channels=8)
SMALL = {
    'wan2.2-ti2v-5b': (_WAN | dict(in_channels=8, out_channels=8),
                       _WAN_VAE | dict(decoder_base_dim=4, z_dim=8, latents_mean=[0.]*8, latents_std=[1.]*8)),
    'wan2.1-i2v-14b': (_A14B | dict(image_dim=16, added_kv_proj_dim=24), _WAN_VAE),
    'wan2.2-i2v-a14b': (_A14B, _WAN_VAE),
    'cogvideox1.5-5b-i2v': (_COG | dict(sample_width=16, sample_height=16, ofs_embed_dim=32), _COG_VAE),
    'cogvideox-5b-i2v': (_COG | dict(sample_width=8, sample_height=8, sample_frames=9), _COG_VAE),
    'ltx-2b': (_LTX, dict(latent_channels=8, block_out_channels=(8,)*4, decoder_block_out_channels=(8,)*4,
                          layers_per_block=(1,)*5, decoder_layers_per_block=(1,)*5)),
    'ltx-13b': (_LTX, dict(latent_channels=8, block_out_channels=(4, 8, 16, 32, 64), # twofold, as the published one
                           decoder_block_out_channels=(8, 16, 32),
                           layers_per_block=(1,)*5, decoder_layers_per_block=(1,)*4)),
}
SCHEDULERS = dict(
    wan=lambda first_clean: UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True,
                                                    flow_shift=5. if first_clean else 3.),
    cogvideox=lambda _: CogVideoXDDIMScheduler(beta_schedule='scaled_linear', prediction_type='v_prediction',
                                               clip_sample=False, rescale_betas_zero_snr=True,
                                               timestep_spacing='trailing', snr_shift_scale=1.),
    ltx=lambda _: FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=.95, max_shift=2.05,
                                                  base_image_seq_len=1024, max_image_seq_len=4096, shift_terminal=.1))

@contextmanager
def shrunk(names):
    "Small configurations in the place of the published ones, for everything that reads them, while the block runs"
    was = {name: FAMILIES[name][0].CONFIGS[name] for name in names}
    try:
        for name, config in was.items():
            t, vae = SMALL[name]
            small = dict(transformer=config['transformer'] | t, vae=config['vae'] | vae)
            FAMILIES[name][0].CONFIGS[name] = config | small
        memory._count.cache_clear()
        yield
    finally:
        for name, config in was.items(): FAMILIES[name][0].CONFIGS[name] = config
        memory._count.cache_clear()

@contextmanager
def built_as(device, dtype):
    "Modules that are made in the block have their weights there at once, and in this form"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), still(): yield
    finally: torch.set_default_dtype(before)

def random_network(cls, config, device, dtype):
    "A transformer with random weights, those that its class wants so in float32"
    with built_as(device, dtype): t = cls(**config)
    exact = cls._keep_in_fp32_modules or ()
    for name, p in t.named_parameters():
        if any(part in name.split('.') for part in exact): p.data = p.data.float()
    return t.eval()

def clip_vision(config, device):
    "The image encoder of Wan 2.1, ViT-H/14, and what prepares its pictures"
    width = config['image_dim']
    small = dict(hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28,
                 patch_size=14)
    full = dict(hidden_size=width, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16,
                image_size=224, patch_size=14, hidden_act='gelu')
    sizes = full if width == 1280 else small
    with built_as(device, torch.float32): encoder = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes))
    side = sizes['image_size']
    processor = transformers.CLIPImageProcessor(size=dict(shortest_edge=side), crop_size=dict(height=side, width=side))
    return dict(image_encoder=encoder.eval(), image_processor=processor)

def random_vdm(
    name, # of the registry
    device, dtype, # of the transformer
    options=(), # of `FullSize.prepare`
):
    "A model of the registry with random weights everywhere"
    torch.manual_seed(0)
    module, cls = FAMILIES[name]
    config = module.CONFIGS[name]
    t = config['transformer']
    with built_as(device, torch.float32): vae = module.VAE(**config['vae']).eval()
    first_clean = cls.family == 'wan' and t['in_channels'] == t['out_channels']
    parts = dict(vae=vae, transformer=random_network(module.TRANSFORMER, t, device, dtype), tokenizer=None,
                 text_encoder=None, scheduler=SCHEDULERS[cls.family](first_clean))
    if cls.family == 'wan': parts |= dict(expand_timesteps=first_clean)
    if config.get('experts'):
        parts |= dict(transformer_2=random_network(module.TRANSFORMER, t, device, dtype), boundary_ratio=.9)
    if t.get('image_dim'): parts |= clip_vision(t, device)
    shape = module.meta_inputs(config, *shape_of(name))['encoder_hidden_states'].shape
    text = [torch.randn(shape, device=device, dtype=dtype), torch.ones(shape[:2], device=device)]
    pipe = cls.pipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return cls(pipe, text, name, 'random-0', '', device, dtype).prepare(**{k: True for k in options})

def shape_of(name):
    "Frames, height and width that a model is measured at: nine frames, or what it knows"
    t, (h, w) = FAMILIES[name][0].CONFIGS[name]['transformer'], native_size(name)
    if t.get('use_learned_positional_embeddings'): return t['sample_frames'], h, w
    return (9, h, w) if t['num_layers'] > 3 else (9, 128, 128) # of --small

def synchronize(device):
    if device.type == 'cuda': torch.cuda.synchronize(device)

def seconds(f, device):
    "What a function gives, and how long it takes on the device"
    synchronize(device)
    began = time.perf_counter()
    found = f()
    synchronize(device)
    return found, time.perf_counter()-began

def measured_rate(device, dtype, side):
    "Operations a second of a product of two large matrices"
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3): a@b
    return 2*side**3/min(seconds(lambda: a@b, device)[1] for _ in range(10))

def peak_gb(device):
    "The largest memory that tensors took since the last call, in GB; None where it is not counted"
    if device.type != 'cuda': return None
    peak = torch.cuda.max_memory_allocated(device)/GB
    torch.cuda.reset_peak_memory_stats(device)
    return peak

def cases(
    names, # of the registry
    gb, # memory of the card
    only=None, # one set of options, for all of them
): # yields model and options
    "Each set of options that a card of 24 to 140 GB is given, then what may make the last one faster or smaller"
    for name in names:
        if only is not None:
            yield name, tuple(only)
            continue
        found = dict.fromkeys(n.options for size in PRESETS if size <= 1.05*gb and (n := fits(name, size)))
        sets = [*found] or [SETS[-1]]
        more = [(*sets[-1], option) for option in ('compile', 'fp8', 'group_offload') if option not in sets[-1]]
        yield from ((name, options) for options in sets+more)

def measure(name, options, o, rate):
    "One case: a dict, one line of the file"
    device, dtype, (n_frames, h, w) = o.device, o.dtype, shape_of(name)
    told = tuple(k for k in options if k in SETS[-1])
    need = estimate(name, n_frames, h, w, o.rank, options=told)
    row = dict(model=name, options=[*options], frames=n_frames, height=h, width=w, rank=o.rank, batch=1,
               estimate_gb=need.total/GB, # the text encoder counts there, which is not built here
               training_estimate_gb=1.1*(need.weights+need.lora+need.activations+need.encoders)/GB,
               weights_gb=need.weights/GB, lora_gb=need.lora/GB, activations_gb=need.activations/GB)
    peak_gb(device)
    vdm, row['build_seconds'] = seconds(lambda: random_vdm(name, device, dtype, options), device)
    row['built_peak_gb'] = peak_gb(device)
    rng = np.random.default_rng(0)
    pairs = Pairs(*(rng.integers(0, 256, (2, h, w, 3), dtype=np.uint8) for _ in range(2)))
    videos = make_videos(pairs, 'discrete', n_frames)
    _, spent = seconds(lambda: vdm.encode(videos), device)
    row |= dict(encode_seconds=spent/len(videos), encode_peak_gb=peak_gb(device))
    ticks = []
    def tick(event):
        synchronize(device)
        ticks.append(time.perf_counter())
    how = dict(n_frames=n_frames, rank=o.rank, batch_size=1, steps=o.steps, seed=0, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        adapter = finetune(pairs, vdm, callbacks=[tick], **how)
        steps = np.diff(ticks)
        row |= dict(train_peak_gb=peak_gb(device), step_seconds=statistics.median(steps),
                    losses=adapter.settings['losses'])
        forward = operations(name, n_frames, h, w, o.rank)
        work = forward*(3 if 'checkpointing' in options else 2)
        row |= dict(forward_operations=forward, floor_seconds=work/rate, share_of_floor=work/rate/row['step_seconds'])
        found, spent = seconds(lambda: adapter.predict(pairs.inputs[:1], steps=o.sampler_steps, progress=False), device)
        row |= dict(sampler_steps=o.sampler_steps, predict_seconds=spent, predict_peak_gb=peak_gb(device))
        row |= dict(resumed_difference=stopped_and_resumed(pairs, vdm, adapter, Path(folder)/'run', o, how))
        adapter.save(Path(folder)/'adapter')
        loaded = load_adapter(Path(folder)/'adapter', vdm)
        again = loaded.predict(pairs.inputs[:1], steps=o.sampler_steps, progress=False)
        row |= dict(loaded_difference=int(np.abs(found.images.astype(int)-again.images).max()))
    return row

def stopped_and_resumed(pairs, vdm, adapter, folder, o, how):
    "The largest difference in the loss of a step between a run and one that was interrupted half-way and went on"
    def press(event):
        if event.step == o.steps//2: raise KeyboardInterrupt
    try: finetune(pairs, vdm, out=folder, save_every=1, callbacks=[press], **how)
    except KeyboardInterrupt: pass
    again = finetune(pairs, vdm, out=folder, resume=True, **how)
    return float(np.abs(np.subtract(again.settings['losses'], adapter.settings['losses'])).max())

def options_of(args=None):
    "What the command takes"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('file', type=Path, help='the rows: one JSON object a line')
    p.add_argument('--models', nargs='+', choices=[*FAMILIES], default=[*FAMILIES])
    p.add_argument('--device', type=usable, help='left out: the accelerator if there is one, else the CPU')
    p.add_argument('--dtype', type=lambda name: getattr(torch, name), help='of the transformer')
    p.add_argument('--options', nargs='*', choices=[*SETS[-1], 'compile', 'group_offload'], help='only these, together')
    p.add_argument('--steps', type=int, default=10, help='of training')
    p.add_argument('--sampler-steps', type=int, default=4, help='of the prediction')
    p.add_argument('--rank', type=int, default=32, help='of the LoRA')
    p.add_argument('--minutes', type=float, default=math.inf, help='no case begins after this time')
    p.add_argument('--retry', action='store_true', help='measure again what failed')
    p.add_argument('--small', action='store_true', help='models a thousand times smaller: to try the command')
    return p.parse_args(args)

def known(file, retry=False):
    "What a file holds already: model and options"
    if not file.is_file(): return set()
    rows = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
    return {(row['model'], tuple(row['options'])) for row in rows if not (retry and 'error' in row)}

def run(o):
    "Measure what is not in the file yet"
    began, device = time.monotonic(), usable(o.device)
    o = SimpleNamespace(**vars(o) | dict(device=device, dtype=o.dtype or native_dtype(device)))
    done, side = known(o.file, o.retry), 512 if o.small or device.type == 'cpu' else 8192
    rate = measured_rate(device, o.dtype, side)
    where = machine()
    about = dict(device=where['accelerator' if device.type == 'cuda' else 'cpu'], device_gb=device_gb(device),
                 dtype=str(o.dtype).removeprefix('torch.'), small=o.small, operations_a_second=rate,
                 versions=versions(), machine=where)
    for name, options in cases(o.models, device_gb(device), o.options):
        if (name, options) in done: continue
        if time.monotonic()-began > 60*o.minutes:
            print('the minutes are over: call again', flush=True)
            return
        try: row = measure(name, options, o, rate)
        except Exception as e: # a card's errors are of many kinds, and each is a finding
            said, *_ = [*str(e).splitlines(), '']
            row = dict(model=name, options=[*options], error=f'{type(e).__name__}: {said[:300]}')
        free_memory()
        before = o.file.read_text(encoding='utf-8') if o.file.is_file() else ''
        with whole(o.file) as part: part.write_text(f'{before}{json.dumps(row | about)}\n', encoding='utf-8')
        print(row.get('error') or f'{name} {"+".join(options) or "plain"}: {row["step_seconds"]:.3g} s a step, '
              f'{row["share_of_floor"]:.0%} of the floor, {row["train_peak_gb"] or math.nan:.1f} GB '
              f'of {row["estimate_gb"]:.1f} estimated', flush=True)

def main(args=None):
    o = options_of(args)
    if o.steps < 4: raise SystemExit(f'--steps {o.steps}: at least 4 are needed, to stop half-way and to time the rest')
    if not o.small: return run(o)
    with shrunk(o.models): run(o)

if __name__ == '__main__': main()
