"CogVideoX against diffusers' own pipeline, on small random models of both versions: conditioning, loss, frames, adapters."
import json
import numpy as np
import pytest, torch
from diffusers import CogVideoXImageToVideoPipeline, FirstBlockCacheConfig
from PIL import Image
from conftest import random_adapter, sampled, seeded
from gen2gen.adapter import import_lora, load_adapter
from gen2gen.cogvideox import CogVideoX, image_channels, load_cogvideox, pad_front
from gen2gen.fullsize import posterior, still
from small_models import small_cogvideox
from gen2gen.pairs import Pairs
from gen2gen.registry import load_vdm
from gen2gen.train import finetune
from gen2gen.vdm import check_videos

pytestmark = pytest.mark.usefixtures('own_cache')
SIZE, CPU = 32, dict(device='cpu', dtype=torch.float32)

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "A saved pipeline of each version"
    found = {}
    for kind in ('1.5', '1.0'):
        found[kind] = tmp_path_factory.mktemp('cog')/kind
        with still(): small_cogvideox(kind).save_pretrained(found[kind])
    return found

@pytest.fixture(scope='module', params=['1.5', '1.0'])
def vdm(request, folders): return load_vdm(folders[request.param], **CPU)

def video(images, n_frames): return np.stack([images[:1]]*(n_frames//2)+[images[1:]]*(n_frames-n_frames//2), 1)

def pipe_frames(pipe, vdm, images, generator, steps=2, n_frames=9, **kwargs):
    with still(): return pipe([Image.fromarray(i) for i in images], prompt_embeds=vdm.text[0].expand(len(images), -1, -1), height=SIZE, width=SIZE, num_frames=n_frames,
                              num_inference_steps=steps, guidance_scale=1, generator=generator, output_type='np', **kwargs).frames

@torch.no_grad()
def shown(vdm, images, n_frames=9):
    "The image channels that the transformer is really given while sampling"
    seen = []
    hook = vdm.transformer.register_forward_pre_hook(lambda m, a, k: seen.append(k['hidden_states']), with_kwargs=True)
    try: vdm.denoise(*vdm.start(images, n_frames, seeded(0)), 1)
    finally: hook.remove()
    return seen[0][:, :, vdm.vae.config.latent_channels:]

def test_condition_is_the_pipelines(vdm, images):
    "What the network sees of the image equals `prepare_latents`; the scales 0.7 and 1.0 would be noticed for 1.5"
    padded = 9+4*(vdm.transformer.config.patch_size_t is not None)
    x = vdm.pipe.video_processor.preprocess([Image.fromarray(i) for i in images])
    noise, wanted = vdm.pipe.prepare_latents(x, 2, 4, padded, SIZE, SIZE, torch.float32, torch.device('cpu'), seeded(0))
    assert (shown(vdm, images)-wanted).abs().max() < 1e-4
    assert (vdm.start(images, 9, seeded(0))[0]-noise.transpose(1, 2)).abs().max() == 0
    rule = vdm.image_scale
    for scale in {.7, 1., 1/.7}-{rule}:
        vdm.image_scale = scale
        try: assert (shown(vdm, images)-wanted).abs().max() > .1
        finally: vdm.image_scale = rule
    assert rule == pytest.approx(1/.7 if vdm.vae.config.invert_scale_latents else .7)

def test_training_sees_the_image_as_sampling_does(vdm, images):
    "Without pixel noise, the loss gives the transformer the channels that the sampler gives it; scale, index and zeros included"
    seen, mean = [], vdm.condition(images, 9, draws=0)['image'][:, :4]
    sure = torch.cat([mean, torch.full_like(mean, -60.)], 1)[:, None]  # a posterior of no width
    hook = vdm.transformer.register_forward_pre_hook(lambda m, a, k: seen.append(k['hidden_states']), with_kwargs=True)
    try: vdm.loss(vdm.encode(np.concatenate([video(images, 9)]*2)), dict(noised=sure), seeded(0))
    finally: hook.remove()
    trained = seen[0][:, :, 4:]
    assert (trained-image_channels(mean, trained.shape[1], vdm.image_scale).transpose(1, 2)).abs().max() < 1e-4
    assert (trained[:, 1:] == 0).all() and trained[:, 0].abs().max() > .01

def test_noise_only_while_training(vdm, images):
    c = vdm.condition(images, 9)
    assert c['noised'].shape[1] == vdm.draws and 'noised' not in vdm.condition(images, 9, draws=0)
    assert ((c['noised']-c['image'][:, None]).abs().amax((2, 3, 4, 5)) > 1e-3).all()  # every draw is noised, and no two are alike
    assert (c['noised'][:, 0]-c['noised'][:, 1]).abs().max() > 1e-3

@pytest.mark.parametrize('alike', [True, False], ids=['one-generator', 'a-list'])
def test_frames_are_the_pipelines(vdm, images, alike):
    g = lambda: seeded(1) if alike else [seeded(1), seeded(2)]
    ours, theirs = sampled(vdm, images, g()), pipe_frames(vdm.pipe, vdm, images, g())
    assert ours.shape == theirs.shape == (2, 9, SIZE, SIZE, 3)
    assert np.abs(ours-theirs).max() < 1e-4
    assert np.abs(vdm.sample(images, g(), steps=2, n_frames=9)-theirs*255).max() <= .5+255e-4

def test_longer_clips_are_the_pipelines(folders, images):
    vdm = load_cogvideox(folders['1.5'], **CPU)
    assert np.abs(sampled(vdm, images[:1], seeded(3), 1, 17)-pipe_frames(vdm.pipe, vdm, images[:1], seeded(3), 1, 17)).max() < 1e-4

def test_loss_is_the_published_one(vdm, images):
    "The trainers' form, transcribed: x̂₀ by the scheduler, weighted by 1/(1−ᾱ), with our own draws put in"
    latents, c, seen = vdm.encode(np.concatenate([video(images, 9), video(images[::-1], 9)])), vdm.condition(images, 9), []
    keep = lambda m, a, k, out: seen.append((k['hidden_states'], k['timestep'], out[0]))
    hook = vdm.transformer.register_forward_hook(keep, with_kwargs=True)
    try: ours = vdm.loss(latents, c, seeded(5))
    finally: hook.remove()
    (given, t, out), g = seen[0], seeded(5)
    x0 = pad_front(vdm.vae.config.scaling_factor*posterior(latents, g), vdm.transformer.config.patch_size_t).transpose(1, 2)
    x_t, s = given[:, :, :4], vdm.scheduler
    assert len(set(t.tolist())) == 2 and (t >= 0).all() and (t < 1000).all()
    a = s.alphas_cumprod[t].double().view(-1, 1, 1, 1, 1)
    x0_hat = a.sqrt()*x_t.double()-(1-a).sqrt()*out.double()
    published = ((x0_hat-x0.double())**2/(1-a)).mean((1, 2, 3, 4))
    assert torch.allclose(ours.double(), published, rtol=1e-3)
    eps = (x_t-a.sqrt()*x0)/(1-a).sqrt()  # the noise that was put in is standard normal
    assert abs(eps.mean()) < .1 and abs(eps.std()-1) < .1

def test_timesteps_are_uniform(vdm, images):
    latents, c, seen = vdm.encode(video(images, 9)), vdm.condition(images[:1], 9), []
    hook = vdm.transformer.register_forward_pre_hook(lambda m, a, k: seen.append(k['timestep']), with_kwargs=True)
    try:
        with torch.no_grad():
            vdm.loss(latents.expand(64, -1, -1, -1, -1), {k: v.expand(64, *[-1]*(v.ndim-1)) for k, v in c.items()}, seeded(0))
    finally: hook.remove()
    t = seen[0].float()
    assert 400 < t.mean() < 600 and t.min() < 100 and t.max() > 900

@pytest.mark.parametrize('n_frames', [9, 17, 25, 33])
def test_last_latent_is_the_answer(folders, n_frames):
    "For every legal number of frames, the last latent of the padded video decodes to the target, and no other does so alone"
    vdm = CogVideoX(small_cogvideox(blocks=True), load_cogvideox(folders['1.5'], device='cpu').text, dtype=torch.float32)
    check_videos(vdm, n_frames, 16, 16)
    a, b = (np.full((1, 16, 16, 3), v, np.uint8) for v in (40, 200))
    latents = vdm.encode(np.stack([a]*(n_frames-4)+[b]*4, 1))
    x = pad_front(latents[:, :4]*vdm.vae.config.scaling_factor, 2)
    assert x.shape[2] % 2 == 0 and vdm.latent_shape(1, n_frames, 16, 16)[2] == x.shape[2]
    values = (x[0, 0].mean((1, 2))/.7*127.5+127.5).round().tolist()
    assert values == [40]*(x.shape[2]-1)+[200]
    assert (vdm.decode(x[:, :, 1:])[0, -4:] == b).all() and (vdm.decode(x[:, :, 1:])[0, :-4] == a).all()

def test_adapter_in_the_pipeline(vdm, folders, images, tmp_path):
    "What gen2gen saves, the pipeline loads, at the same strength although α is not the rank"
    adapter = random_adapter(vdm, 4, 1.)
    adapter.save(tmp_path)
    with adapter.active(): ours = sampled(vdm, images, seeded(1))
    plain = sampled(vdm, images, seeded(1))
    with still(): pipe = CogVideoXImageToVideoPipeline.from_pretrained(folders['1.5' if vdm.vae.config.invert_scale_latents else '1.0'], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path))
    assert np.abs(ours-pipe_frames(pipe, vdm, images, seeded(1))).max() < 1e-4
    assert np.abs(ours-plain).max() > 1e-3
    again = load_adapter(tmp_path, vdm)
    with again.active(): assert np.abs(sampled(vdm, images, seeded(1))-ours).max() == 0

def test_adapter_of_another_scale(folders, tmp_path):
    vdm, other = (load_cogvideox(folders['1.5'], **CPU, image_scale=o) for o in (None, .7))
    random_adapter(other, 2, 2.).save(tmp_path)
    assert load_adapter(tmp_path, other).settings['vdm']['image_scale'] == .7
    with pytest.raises(ValueError, match='image_scale=0.7'): load_adapter(tmp_path, vdm)

def test_comfy_round_trip(folders, images, tmp_path):
    vdm = load_cogvideox(folders['1.5'], **CPU)
    adapter = random_adapter(vdm, 4, 1.)
    file, = adapter.export_comfy(tmp_path/'lora.safetensors')
    with adapter.active(): ours = sampled(vdm, images[:1], seeded(1), 1)
    with import_lora(file, vdm, n_frames=9).active(): theirs = sampled(vdm, images[:1], seeded(1), 1)
    assert np.abs(ours-theirs).max() < 1e-4

def test_same_seed_same_adapter(folders, images):
    vdm = load_cogvideox(folders['1.5'], **CPU)
    a, b = (finetune(Pairs(images[:1], images[1:]), vdm=vdm, n_frames=9, steps=2, batch_size=2, rank=2, progress=False) for _ in range(2))
    assert all(torch.equal(a.state[k], b.state[k]) for k in a.state) and a.settings['losses'] == b.settings['losses']

def test_step_cache(folders, images):
    "A cache that never reuses a block changes nothing, one that always does changes the frames, and neither stays on"
    vdm = load_cogvideox(folders['1.5'], **CPU)
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
    vdm = load_cogvideox(folders['1.5'], device='cpu', dtype=torch.bfloat16)
    assert next(vdm.transformer.parameters()).dtype == torch.bfloat16
    adapter = finetune(Pairs(images[:1], images[1:]), vdm=vdm, n_frames=9, steps=2, batch_size=2, rank=2, progress=False)
    assert all(v.dtype == torch.float32 for v in adapter.state.values()) and np.isfinite(adapter.settings['losses']).all()
    assert adapter.predict(images[:1], steps=1).videos.shape == (1, 9, SIZE, SIZE, 3)

def test_bad_input(folders, images, tmp_path):
    vdm = load_cogvideox(folders['1.5'], **CPU)
    with pytest.raises(ValueError, match='nearest it can is 9'): vdm.sample(images, n_frames=8)
    with pytest.raises(ValueError, match='32×32'): vdm.sample(np.zeros((1, 30, 34, 3), np.uint8), n_frames=9)
    with pytest.raises(ValueError, match='one noised copy'): load_cogvideox(folders['1.5'], draws=0)
    old = load_cogvideox(folders['1.0'], **CPU)
    with pytest.raises(ValueError, match='nearest it can is 9'): old.sample(images, n_frames=17)
    with pytest.raises(ValueError, match='32×32'): old.sample(np.zeros((1, 48, 48, 3), np.uint8))
    copy = tmp_path/'t2v'
    copy.mkdir()
    for o in folders['1.5'].iterdir(): (copy/o.name).symlink_to(o) if o.name != 'transformer' else (copy/o.name).mkdir()
    config = json.loads((folders['1.5']/'transformer'/'config.json').read_text())
    (copy/'transformer'/'config.json').write_text(json.dumps(config | dict(in_channels=4)))
    for o in (folders['1.5']/'transformer').glob('*.safetensors'): (copy/'transformer'/o.name).symlink_to(o)
    with pytest.raises(ValueError, match='text-to-video'): load_vdm(copy)
