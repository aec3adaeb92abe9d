"""Parity of the Wan family with diffusers, on small random pipelines that are saved and loaded as real folders; what LoRA files do
in other hands; fine-tuning; and what is refused. Nothing here needs a GPU or a network; nothing full-size was run."""
import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file

from conftest import frames_of, random_adapter, seeded
from gen2gen.adapter import Adapter, import_lora, load_adapter, lora_config
from gen2gen.flow import Share
from gen2gen.fullsize import still
from gen2gen.metrics import psnr
from gen2gen.pairs import Pairs
from gen2gen.registry import load_vdm
from gen2gen.train import finetune
from gen2gen.vdm import pair_latents
from small_models import WAN_KINDS, small_wan
from gen2gen.wan import Wan

pytestmark = pytest.mark.usefixtures("own_cache")
KINDS = list(WAN_KINDS)
per_kind = pytest.mark.parametrize("kind", KINDS)
H = W = 64

def pictures(n=2, seed=0):
    "Smooth pictures, uint8 (n, 64, 64, 3)"
    coarse = torch.rand(n, 3, 4, 4, generator=seeded(seed))
    return (torch.nn.functional.interpolate(coarse, size=(H, W), mode="bicubic").clamp(0, 1)*255).byte().permute(0, 2, 3, 1).numpy()

@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("wan")
    for kind in KINDS:
        with still(): small_wan(kind).save_pretrained(root/kind)
    return root

@pytest.fixture(scope="module")
def vdms(folders): return {kind: load_vdm(folders/kind, device="cpu", dtype=torch.float32) for kind in KINDS}

@pytest.fixture(scope="module")
def pipes(folders):
    with still(): found = {kind: WanImageToVideoPipeline.from_pretrained(folders/kind, local_files_only=True) for kind in KINDS}
    for p in found.values(): p.set_progress_bar_config(disable=True)
    return found

def noise_for(vdm, n, frames): return torch.randn(vdm.latent_shape(n, frames, H, W), generator=seeded(5))

def run_pipe(pipe, images, noise, frames, steps=2, output_type="pt"):
    "The pipeline's own prompt reading, preparation, loop and decoding, one image at a time: (n, F, 3, H, W)"
    return torch.cat([pipe(Image.fromarray(o), prompt="", latents=noise[i:i+1], height=H, width=W, num_frames=frames, num_inference_steps=steps,
                           guidance_scale=1., output_type=output_type, return_dict=False)[0] for i, o in enumerate(images)])

def our_frames(vdm, images, noise, frames, steps=2):
    "The same from ours, (n, F, 3, H, W)"
    return torch.from_numpy(frames_of(vdm, vdm.denoise(noise, vdm.condition(images, frames), steps))).permute(0, 1, 4, 2, 3)

@per_kind
@pytest.mark.parametrize("frames", [5, 9, 17])
def test_condition(kind, frames, vdms, pipes):
    "What the pipeline prepares from the image, for every image of a batch"
    vdm, pipe, x = vdms[kind], pipes[kind], pictures()
    ours = vdm.condition(x, frames)
    for i, o in enumerate(x):
        image = pipe.video_processor.preprocess(Image.fromarray(o), height=H, width=W)
        with torch.no_grad(): prepared = pipe.prepare_latents(image, 1, vdm.vae.config.z_dim, H, W, frames, torch.float32, torch.device("cpu"), torch.Generator())
        theirs = prepared[1]
        key = "first" if kind == "ti2v" else "channels"
        assert (ours[key][i:i+1]-theirs).abs().max() < 1e-5 and ours[key].shape[1:] == theirs.shape[1:]
        if kind == "i2v":
            with torch.no_grad(): assert (ours["clip"][i:i+1]-pipe.encode_image(Image.fromarray(o), torch.device("cpu"))).abs().max() < 1e-5
    assert ("clip" in ours) == (kind == "i2v")

@per_kind
def test_sample(kind, vdms, pipes):
    "The pipeline's frames for the same noise, prompt reading included"
    vdm, x = vdms[kind], pictures()
    noise = noise_for(vdm, 2, 9)
    theirs = run_pipe(pipes[kind], x, noise, 9)
    ours = our_frames(vdm, x, noise, 9)
    assert ours.shape == theirs.shape == (2, 9, 3, H, W)
    assert theirs.std() > .05, "a picture of one grey would pass whatever the network does"
    assert (ours-theirs).abs().max() < 1e-4
    if kind == "moe": assert (pipes[kind].scheduler.timesteps >= 900).tolist() not in ([True]*2, [False]*2), "both experts take part"

def test_sample_is_seeded(vdms):
    vdm, x = vdms["ti2v"], pictures()
    gens = lambda: [seeded(s) for s in (1, 2)]
    a, b = vdm.sample(x, gens(), steps=2, n_frames=5), vdm.sample(x[1:], gens()[1:], steps=2, n_frames=5)
    assert a.dtype == np.uint8 and a.shape == (2, 5, H, W, 3)
    assert np.abs(a[1:].astype(int)-b).max() <= 1  # a batch of other size adds in another order

@per_kind
def test_loss(kind, vdms):
    "Flow matching as published: x_t on the straight line, target noise − x, timestep 1000σ, σ logit-normal and shifted"
    vdm, x = vdms[kind], pictures()
    latents, cond, n = pair_latents(vdm, Pairs(x, 255-x), "convex", 9), vdm.condition(x, 9), 2
    with torch.no_grad(): ours = vdm.loss(latents, cond, seeded(3))
    g = seeded(3)
    u = torch.sigmoid(torch.randn(n, generator=g))
    shift = {"ti2v": 5., "i2v": 3., "moe": 3.}[kind]
    sigma, eps = shift*u/(1+(shift-1)*u), torch.randn(latents.shape, generator=g)
    for i in range(n):
        z = (1-sigma[i])*latents[i:i+1]+sigma[i]*eps[i:i+1]
        text = vdm.text[0]
        model = vdm.transformer if kind != "moe" or 1000*sigma[i] >= 900 else vdm.pipe.transformer_2
        with torch.no_grad():
            if kind == "ti2v":
                z[:, :, 0] = cond["first"][i, :, 0]
                t = torch.full((1, z.shape[2], z.shape[3]//2, z.shape[4]//2), 1000*sigma[i].item()); t[:, 0] = 0
                out = model(z, t.flatten(1), text).sample
            else: out = model(torch.cat([z, cond["channels"][i:i+1]], 1), 1000*sigma[i:i+1], text, cond["clip"][i:i+1] if "clip" in cond else None).sample
        error = (out-(eps[i:i+1]-latents[i:i+1]))[:, :, 1 if kind == "ti2v" else 0:]
        assert abs(error.square().mean()-ours[i]) < 1e-4*ours[i]

def test_loss_of_a_share(vdms):
    "Rows of a batch that another process has a part of: the same losses"
    vdm, x = vdms["moe"], pictures(4)
    latents, cond = pair_latents(vdm, Pairs(x, 255-x), "convex", 5), vdm.condition(x, 5)
    rows = np.array([1, 3])
    with torch.no_grad():
        whole = vdm.loss(latents, cond, seeded(0))
        part = vdm.loss(latents[rows], {k: v[rows] for k, v in cond.items()}, Share(seeded(0), rows, 4))
    assert (whole[rows]-part).abs().max() < 1e-5

@per_kind
def test_last_latent_holds_the_target(kind, vdms):
    "For every legal number of frames up to 81 (four of them here) a change of the target changes the last latent and no other"
    vdm, x = vdms[kind], pictures(1)
    legal = sorted({vdm.frames(n) for n in range(2, 82)})
    assert legal == list(range(5, 82, 4))
    for frames in (5, 9, 13, 81):
        a, b = (vdm.encode(np.concatenate([np.repeat(x[:, None], frames-1, 1), y[:, None]], 1)) for y in (255-x, x[:, ::-1]))
        assert a.shape[2] == (frames-1)//4+1
        assert torch.equal(a[:, :, :-1], b[:, :, :-1]) and (a[:, :, -1]-b[:, :, -1]).abs().max() > 1e-3

@per_kind
def test_adapter_in_diffusers(kind, vdms, folders, tmp_path):
    "A saved adapter, alpha half of rank, acts in the pipeline as it does here; at another alpha it would not"
    vdm, x = vdms[kind], pictures(1)
    adapter = random_adapter(vdm, 4, 2, n_frames=5)
    adapter.save(tmp_path)
    noise = noise_for(vdm, 1, 5)
    with adapter.active(): ours = our_frames(vdm, x, noise, 5)
    with still(): pipe = WanImageToVideoPipeline.from_pretrained(folders/kind, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    plain = run_pipe(pipe, x, noise, 5)
    pipe.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors", adapter_name="a", local_files_only=True)
    if kind == "moe": pipe.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights_2.safetensors", adapter_name="a", load_into_transformer_2=True, local_files_only=True)
    theirs = run_pipe(pipe, x, noise, 5)
    assert (ours-theirs).abs().max() < 1e-4 and (plain-theirs).abs().max() > 1e-2
    twice = Adapter(vdm, adapter.state, adapter.settings, lora_config(vdm, 4, 4))
    with twice.active(): assert (our_frames(vdm, x, noise, 5)-theirs).abs().max() > 1e-3
    assert load_adapter(tmp_path, vdm).state.keys() == adapter.state.keys()

@per_kind
def test_comfy(kind, vdms, folders, tmp_path):
    "ComfyUI's names, read by diffusers' converter and by `import_lora`"
    vdm, x = vdms[kind], pictures(1)
    adapter = random_adapter(vdm, 4, 2, n_frames=5)
    files = adapter.export_comfy(tmp_path/"lora.safetensors")
    assert len(files) == (2 if kind == "moe" else 1)
    assert {k.split(".")[3] for k in load_file(files[0]) if "attn" in k} == {"self_attn", "cross_attn"} or all(k.startswith("diffusion_model.blocks.") for k in load_file(files[0]))
    noise = noise_for(vdm, 1, 5)
    with adapter.active(): ours = our_frames(vdm, x, noise, 5)
    with import_lora(files, vdm, n_frames=5).active(): back = our_frames(vdm, x, noise, 5)
    assert (ours-back).abs().max() < 1e-4
    with still(): pipe = WanImageToVideoPipeline.from_pretrained(folders/kind, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    for i, f in enumerate(files): pipe.load_lora_weights(str(f), adapter_name="a", local_files_only=True, **(dict(load_into_transformer_2=True) if i else {}))
    assert (ours-run_pipe(pipe, x, noise, 5)).abs().max() < 1e-4

def test_import_of_another_model(vdms, tmp_path):
    file, = random_adapter(vdms["ti2v"], 4).export_comfy(tmp_path/"lora.safetensors")
    with pytest.raises(ValueError, match="takes 2 LoRA files"): import_lora(file, vdms["moe"])
    small = Wan(small_wan("ti2v", num_layers=1), vdms["ti2v"].text, revision="one", dtype=torch.float32)
    with pytest.raises(ValueError, match="do not fit the layers|not found"): import_lora(file, small)

HOLD = lambda a, b, n: np.stack([a]+[b]*(n-1))  # the target in all four frames that share the last latent

@per_kind
def test_one_pair_is_memorised(kind, vdms, flat_pair):
    """A pair of flat colours, a random network, LoRA alone, and a VAE that is near-invertible by construction, so that the last frame is compared with the
    target itself. LoRA is on every layer: a random network cannot even pass its input on. A14B learns it with both experts, each on its own noise levels."""
    wide = dict(num_attention_heads=4, attention_head_dim=24, ffn_dim=192) | (dict(added_kv_proj_dim=96) if kind == "i2v" else {})
    text = [vdms[kind].text[0][:, :8]]  # the rest of the 512 tokens is padding
    vdm = Wan(small_wan(kind, blocks=True, **wide), text, revision=f"wide-{kind}", dtype=torch.float32)
    vdm.cache_latents = False
    vdm.lora_targets = r"patch_embedding|proj_out|condition_embedder\.(time_embedder\.linear_\d|time_proj)|"+Wan.lora_targets
    adapter = finetune(pair := flat_pair, vdm, transition=HOLD, n_frames=5, steps=250, batch_size=64, lr=1e-2, rank=32, progress=False)
    before = vdm.sample(pair.inputs, seeded(0), steps=8, n_frames=5)[:, -1]
    after = adapter.predict(pair, steps=8, progress=False)
    was, copy, now = (float(psnr(o, pair.targets)[0]) for o in (before, pair.inputs, after.images))
    assert now >= 25 and now > max(was, copy)+10, (was, copy, now, adapter.settings["losses"][-5:])
    assert psnr(after.videos[:, 0], pair.inputs)[0] >= 25, "the first frame is the input"
