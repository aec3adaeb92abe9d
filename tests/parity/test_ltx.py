"LTX-Video against diffusers' own pipeline, on small random models with both kinds of VAE: conditioning, loss, frames, adapters."
import json
import numpy as np
import pytest, torch
from diffusers import AutoencoderKLLTXVideo, FirstBlockCacheConfig, LTXImageToVideoPipeline
from PIL import Image
from conftest import random_adapter, sampled, seeded
from gen2gen.adapter import import_lora, load_adapter
from gen2gen.fullsize import posterior, still
from gen2gen.ltx import LTX, load_ltx
from gen2gen.train import finetune
from small_models import small_ltx
from gen2gen.pairs import Pairs
from gen2gen.registry import load_vdm
from gen2gen.vdm import check_videos

pytestmark = pytest.mark.usefixtures('own_cache')
SIZE, CPU = 32, dict(device='cpu', dtype=torch.float32)

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "A saved pipeline of each kind"
    found = {}
    for kind in ('0.9.0', '0.9.1'):
        found[kind] = tmp_path_factory.mktemp('ltx')/kind
        with still(): small_ltx(kind).save_pretrained(found[kind])
    return found

@pytest.fixture(scope='module', params=['0.9.0', '0.9.1'])
def vdm(request, folders):
    vdm = load_vdm(folders[request.param], **CPU)
    vdm.kind = request.param
    return vdm

def video(images, n_frames): return np.stack([images[:1]]+[images[1:]]*(n_frames-1), 1)

def pipe_frames(pipe, vdm, images, generator, steps=2, n_frames=9):
    with still(): return pipe([Image.fromarray(i) for i in images], prompt_embeds=vdm.text[0].expand(len(images), -1, -1), prompt_attention_mask=vdm.text[1].expand(len(images), -1),
        height=SIZE, width=SIZE, num_frames=n_frames, num_inference_steps=steps, guidance_scale=1, generator=generator, decode_timestep=vdm.decode_timestep,
        decode_noise_scale=vdm.decode_noise, frame_rate=vdm.fps, output_type='np').frames

def calls(vdm, f):
    "What the transformer was given and gave while `f` ran"
    seen = []
    hook = vdm.transformer.register_forward_hook(lambda m, a, k, out: seen.append((k, out[0])), with_kwargs=True)
    try: result = f()
    finally: hook.remove()
    return seen, result

def test_condition_is_the_pipelines(vdm, images):
    "The tokens and their timesteps at the first step equal `prepare_latents` and its mask"
    x = vdm.pipe.video_processor.preprocess([Image.fromarray(i) for i in images])
    wanted, mask = vdm.pipe.prepare_latents(x, 2, 8, SIZE, SIZE, 9, torch.float32, torch.device('cpu'), seeded(0))
    with torch.no_grad(): seen, _ = calls(vdm, lambda: vdm.denoise(*vdm.start(images, 9, seeded(0)), 2))
    given = seen[0][0]
    assert (given['hidden_states']-wanted).abs().max() < 1e-4
    assert torch.equal(given['timestep'], given['timestep'].max()*(1-mask)) and given['timestep'].max() == 1000
    assert (seen[1][0]['hidden_states']-wanted)[mask.bool()].abs().max() < 1e-4 and seen[1][0]['timestep'].max() < 1000

def test_training_sees_the_image_as_sampling_does(vdm, images):
    latents, sure = vdm.encode(np.concatenate([video(images, 9)]*2)), vdm.condition(images)['image'].clone()
    sure[:, 8:] = -60.  # a posterior of no width
    seen, _ = calls(vdm, lambda: vdm.loss(latents, dict(image=sure), seeded(0)))
    given, n = seen[0][0], 16
    assert (given['hidden_states'][:, :n]-vdm.pipe._pack_latents(vdm.normalised(sure[:, :8]))).abs().max() < 1e-5
    assert (given['timestep'][:, :n] == 0).all() and (given['timestep'][:, n:] > 0).all()
    assert given['rope_interpolation_scale'] == (8/25, 8, 8)

@pytest.mark.parametrize('alike', [True, False], ids=['one-generator', 'a-list'])
def test_frames_are_the_pipelines(vdm, images, alike):
    if not alike and vdm.kind == '0.9.1': pytest.skip('the pipeline cannot draw the noise of the decoder from a list of generators')
    g = lambda: seeded(1) if alike else [seeded(1), seeded(2)]
    ours, theirs = sampled(vdm, images, g(), 3), pipe_frames(vdm.pipe, vdm, images, g(), 3)
    assert ours.shape == theirs.shape == (2, 9, SIZE, SIZE, 3)
    assert np.abs(ours-theirs).max() < 1e-4
    assert np.abs(vdm.sample(images, g(), steps=3, n_frames=9)-theirs*255).max() <= .5+255e-4

def test_longer_clips_are_the_pipelines(vdm, images):
    assert np.abs(sampled(vdm, images[:1], seeded(3), 2, 17)-pipe_frames(vdm.pipe, vdm, images[:1], seeded(3), 2, 17)).max() < 1e-4

def test_frame_rate_is_a_position(folders, images, tmp_path):
    "24 frames a second give the pipeline's frames at 24, and not those at 25; training sees the same"
    vdm = load_ltx(folders['0.9.0'], **CPU, fps=24)
    usual = load_ltx(folders['0.9.0'], **CPU)
    ours = sampled(vdm, images[:1], seeded(1))
    assert np.abs(ours-pipe_frames(vdm.pipe, vdm, images[:1], seeded(1))).max() < 1e-4 < np.abs(ours-sampled(usual, images[:1], seeded(1))).max()
    seen, _ = calls(vdm, lambda: vdm.loss(vdm.encode(video(images, 9)), vdm.condition(images[:1]), seeded(0)))
    random_adapter(vdm, 2, 2.).save(tmp_path)
    with pytest.raises(ValueError, match='fps=24'): load_adapter(tmp_path, usual)
    assert seen[0][0]['rope_interpolation_scale'] == (8/24, 8, 8) and vdm.fingerprint['fps'] == 24 != usual.fingerprint['fps']

def test_loss_is_the_published_one(vdm, images):
    "The trainer's form, transcribed: squares times a mask that leaves out the image, over the mask's mean"
    latents, c = vdm.encode(np.concatenate([video(images, 17), video(images[::-1], 17)])), vdm.condition(images)
    seen, ours = calls(vdm, lambda: vdm.loss(latents, c, seeded(5)))
    (given, out), pack = seen[0], vdm.pipe._pack_latents
    x_t, sigma = given['hidden_states'].double(), given['timestep'].max(1).values.double().view(-1, 1, 1)/1000
    x0 = pack(vdm.normalised(posterior(latents, seeded(5)))).double()
    noise = (x_t-(1-sigma)*x0)/sigma
    mask = torch.ones_like(x0)
    mask[:, :16] = 0.
    published = ((out.double()-(noise-x0)).pow(2)*mask/mask.mean()).mean((1, 2))
    assert torch.allclose(ours.double(), published, rtol=1e-3)
    assert abs(noise[:, 16:].mean()) < .2 and abs(noise[:, 16:].std()-1) < .2

def test_noise_levels_follow_the_number_of_tokens(vdm, images):
    latents, c = vdm.encode(video(images, 9)), vdm.condition(images[:1])
    many = lambda: vdm.loss(latents.expand(256, -1, -1, -1, -1), dict(image=c['image'].expand(256, -1, -1, -1, -1)), seeded(0))
    with torch.no_grad(): seen, _ = calls(vdm, many)
    logit = torch.logit(seen[0][0]['timestep'].max(1).values.double()/1000)
    assert abs(logit.mean()-(.95+1.1*(32-1024)/3072)) < .15 and abs(logit.std()-1) < .15

@pytest.mark.parametrize('n_frames', [9, 17, 25])
def test_last_latent_is_the_answer(folders, n_frames):
    "For every legal number of frames, the last latent decodes to the target, and no other does"
    vdm = LTX(small_ltx(blocks=True), load_ltx(folders['0.9.0'], device='cpu').text, dtype=torch.float32)
    check_videos(vdm, n_frames, 16, 16)
    a, b = (np.full((1, 16, 16, 3), v, np.uint8) for v in (40, 200))
    z = vdm.encode(np.stack([a]*(n_frames-8)+[b]*8, 1))[:, :8]
    assert z.shape[2] == vdm.latent_shape(1, n_frames, 16, 16)[2]
    assert (z[0, 0].mean((1, 2))*127.5+127.5).round().tolist() == [40]*(z.shape[2]-1)+[200]
    assert np.abs(vdm.decode(z)[0, -8:].astype(int)-200).max() <= 1 and np.abs(vdm.decode(z)[0, :-8].astype(int)-40).max() <= 1

def test_decoder_noise_is_seeded(folders, images):
    "Decoders that inject noise draw it from torch's global generator: the frames do not depend on it, and it is left as it was"
    vdm = load_ltx(folders['0.9.0'], **CPU)
    config = dict(vdm.vae.config) | dict(decoder_inject_noise=[True]*5)
    torch.manual_seed(0)
    vdm.vae = AutoencoderKLLTXVideo.from_config(config).eval()
    for k, p in vdm.vae.named_parameters():
        if 'per_channel_scale' in k: p.data.fill_(1.)
    z = torch.randn(1, 8, 2, 4, 4)
    with torch.no_grad():
        torch.manual_seed(1); plain = vdm.vae.decode(z, return_dict=False)[0]
        torch.manual_seed(2); moved = vdm.vae.decode(z, return_dict=False)[0]
        before = torch.get_rng_state()
        first = vdm.to_pixels(z)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(3)
        assert torch.equal(vdm.to_pixels(z), first) and (plain-moved).abs().max() > 1e-3

def test_adapter_in_the_pipeline(vdm, folders, images, tmp_path):
    "What gen2gen saves, the pipeline loads, at the same strength although α is not the rank"
    adapter = random_adapter(vdm, 4, 1.)
    adapter.save(tmp_path)
    with adapter.active(): ours = sampled(vdm, images, seeded(1))
    plain = sampled(vdm, images, seeded(1))
    with still(): pipe = LTXImageToVideoPipeline.from_pretrained(folders[vdm.kind], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path))
    assert np.abs(ours-pipe_frames(pipe, vdm, images, seeded(1))).max() < 1e-4
    assert np.abs(ours-plain).max() > 1e-3
    with load_adapter(tmp_path, vdm).active(): assert np.abs(sampled(vdm, images, seeded(1))-ours).max() == 0

def test_comfy_round_trip(vdm, folders, images, tmp_path):
    "A ComfyUI file gives the same frames, read by gen2gen and by the pipeline"
    adapter = random_adapter(vdm, 4, 1.)
    file, = adapter.export_comfy(tmp_path/'lora.safetensors')
    with adapter.active(): ours = sampled(vdm, images[:1], seeded(1))
    with import_lora(file, vdm, n_frames=9).active(): assert np.abs(ours-sampled(vdm, images[:1], seeded(1))).max() < 1e-4
    with still(): pipe = LTXImageToVideoPipeline.from_pretrained(folders[vdm.kind], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(file))
    assert np.abs(ours-pipe_frames(pipe, vdm, images[:1], seeded(1))).max() < 1e-4

def test_step_cache(folders, images):
    "A cache that never reuses a block changes nothing, one that always does changes the frames, and neither stays on"
    vdm = load_ltx(folders['0.9.0'], **CPU)
    frames = lambda: vdm.sample(images[:1], seeded(0), steps=4, n_frames=9)
    plain = frames()
    vdm.step_cache = FirstBlockCacheConfig(threshold=-1.)
    assert (frames() == plain).all()
    vdm.step_cache = FirstBlockCacheConfig(threshold=1e9)
    assert (frames() != plain).any() and not vdm.transformer.is_cache_enabled
    vdm.step_cache = None
    assert (frames() == plain).all()

def test_bfloat16(folders, images):
    "A bfloat16 base with float32 LoRA weights trains and samples"
    vdm = load_ltx(folders['0.9.1'], device='cpu', dtype=torch.bfloat16)
    assert next(vdm.transformer.parameters()).dtype == torch.bfloat16
    adapter = finetune(Pairs(images[:1], images[1:]), vdm=vdm, n_frames=9, steps=2, batch_size=2, rank=2, progress=False)
    assert all(v.dtype == torch.float32 for v in adapter.state.values()) and np.isfinite(adapter.settings['losses']).all()
    assert adapter.predict(images[:1], steps=2).videos.shape == (1, 9, SIZE, SIZE, 3)

def test_folders_of_other_pipelines(folders, images, tmp_path):
    "LTX is published in folders of the text-to-video pipeline and of the one with conditions; both serve"
    usual = load_vdm(folders['0.9.1'], **CPU)
    for kind in ('LTXPipeline', 'LTXConditionPipeline'):
        copy = tmp_path/kind
        copy.mkdir()
        for o in folders['0.9.1'].iterdir():
            if o.is_dir(): (copy/o.name).symlink_to(o)
        index = json.loads((folders['0.9.1']/'model_index.json').read_text())
        (copy/'model_index.json').write_text(json.dumps(index | dict(_class_name=kind)))
        vdm = load_vdm(copy, **CPU)
        assert vdm.revision == usual.revision and (vdm.sample(images[:1], seeded(0), 2, 9) == usual.sample(images[:1], seeded(0), 2, 9)).all()

def test_paper_settings(vdm):
    "Table 5 of the second paper: 2B and 13B differ in batch and accumulation"
    small, name = vdm.paper, vdm.name
    vdm.name = 'ltx-13b'
    try: assert (small['batch_size'], small['accumulation'], vdm.paper['batch_size'], vdm.paper['accumulation']) == (4, 1, 2, 2)
    finally: vdm.name = name
    assert small['alpha'] == small['rank'] == 64 and small['lr'] == 2e-4 and small['schedule'] == 'linear'

def test_bad_input(folders, images):
    vdm = load_ltx(folders['0.9.0'], **CPU)
    with pytest.raises(ValueError, match='nearest it can is 9'): vdm.sample(images, n_frames=12)
    with pytest.raises(ValueError, match='32×32'): vdm.sample(np.zeros((1, 30, 34, 3), np.uint8), n_frames=9)
    with pytest.raises(ValueError, match='at least 2 steps'): vdm.sample(images, steps=1, n_frames=9)
    with pytest.raises(ValueError, match='must be above 0'): load_ltx(folders['0.9.0'], fps=0)
