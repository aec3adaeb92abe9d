"A prompt is learned from pairs, alone or before a LoRA, is kept with the adapter, and goes when the adapter goes."
import numpy as np
import pytest
import torch

from gen2gen.adapter import PROMPT, PROMPT_FILE, load_adapter
from gen2gen.codec import Codec, random_autoencoder
from gen2gen.fullsize import still
from gen2gen.pairs import Pairs
from gen2gen.pretrain import World, blank
from gen2gen.registry import load_vdm
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.train import finetune
from small_models import small_cogvideox, small_ltx, small_wan

x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
pairs, quick = Pairs(x, 255-x), dict(steps=6, batch_size=2, progress=False)

@pytest.fixture(scope='module')
def vdm():
    "A small model that knows words"
    made = blank(World(Codec(random_autoencoder(), dtype=torch.float32)), num_layers=1, attention_head_dim=24,
                 num_attention_heads=2, ffn_dim=32)
    for p in made.transformer.parameters(): p.requires_grad_(False)
    made.words.requires_grad_(False)
    made.text = made.embed(torch.zeros(1, 1, dtype=torch.long))
    return made

@pytest.mark.parametrize('settings', [dict(), dict(method='prompt'), dict(method='full')],
                         ids=['lora', 'prompt', 'full'])
def test_learned_saved_and_read(vdm, tmp_path, settings):
    before, plain = vdm.prompt_vector.clone(), vdm.sample(x, torch.Generator().manual_seed(0))
    adapter = finetune(pairs, vdm, **quick, **settings)
    assert adapter.state[PROMPT].abs().max() > 0 and 'prompt' in repr(adapter)
    assert (len(adapter.weights) == 0) == (settings.get('method') == 'prompt')
    assert torch.equal(vdm.prompt_vector, before)
    assert (vdm.sample(x, torch.Generator().manual_seed(0)) == plain).all()
    back = load_adapter(adapter.save(tmp_path/'a'), vdm)
    assert (tmp_path/'a'/PROMPT_FILE).is_file()
    assert (back.predict(x, progress=False).videos == adapter.predict(x, progress=False).videos).all()
    with pytest.raises(ValueError, match='ComfyUI|LoRA'): adapter.export_comfy(tmp_path/'c.safetensors')

def test_one_after_the_other(vdm):
    "Each half leaves what is not its turn alone"
    steps = []
    def look(event): steps.append({k: v.clone() for k, v in event.trainer.params.items()})
    finetune(pairs, vdm, prompt_steps=3, callbacks=[look], **quick)
    first, third, last = steps[0], steps[2], steps[-1]
    assert all(torch.equal(first[k], third[k]) for k in first if k != PROMPT)
    assert not torch.equal(first[PROMPT], third[PROMPT]) and torch.equal(third[PROMPT], last[PROMPT])
    assert any(not torch.equal(third[k], last[k]) for k in first if k != PROMPT)

@pytest.mark.parametrize('stop', [1, 4])
def test_stopped_in_either_half_and_resumed(vdm, tmp_path, stop):
    def ctrl_c(event):
        if event.step == stop: raise KeyboardInterrupt
    straight = finetune(pairs, vdm, prompt_steps=3, **quick)
    with pytest.raises(KeyboardInterrupt):
        finetune(pairs, vdm, prompt_steps=3, out=tmp_path/'a', callbacks=[ctrl_c], **quick)
    resumed = finetune(pairs, vdm, prompt_steps=3, out=tmp_path/'a', resume=True, **quick)
    for k, v in straight.state.items(): assert torch.equal(v, resumed.state[k]), k

def test_what_cannot_be(vdm):
    with pytest.raises(ValueError, match='prompt_steps=6 leaves none of the 6 steps'):
        finetune(pairs, vdm, prompt_steps=6, **quick)
    with pytest.raises(ValueError, match='prompt_steps=-1'): finetune(pairs, vdm, prompt_steps=-1, **quick)
    silent = Tiny(random_transformer(0, num_layers=1), device='cpu', dtype=torch.float32)
    assert PROMPT not in finetune(pairs, silent, **quick).state  # without words there is nothing to ask for

def test_an_adapter_of_another_model_is_refused(vdm, tmp_path):
    adapter = finetune(pairs, vdm, method='prompt', **quick)
    adapter.state[PROMPT] = adapter.state[PROMPT][..., :8].clone()
    with pytest.raises(ValueError, match='do not fit'): load_adapter(adapter.save(tmp_path), vdm)

@pytest.mark.parametrize('pipeline', [lambda: small_wan('ti2v'), small_cogvideox, small_ltx],
                         ids=['wan', 'cogvideox', 'ltx'])
def test_full_size_families(pipeline, tmp_path):
    "A full-size model learns no prompt unless asked, and then learns the embedding of its text encoder"
    with still(): pipeline().save_pretrained(tmp_path/'model')
    vdm = load_vdm(tmp_path/'model', device='cpu', dtype=torch.float32)
    vdm.cache_latents = False
    frames = dict(n_frames=vdm.frames(5), steps=2, batch_size=1, rank=2, progress=False)
    assert PROMPT not in finetune(pairs[:1], vdm, **frames).state
    before = vdm.prompt_vector.clone()
    adapter = finetune(pairs[:1], vdm, method='prompt', **frames)
    assert adapter.state[PROMPT].shape == before.shape and not torch.equal(adapter.state[PROMPT], before.float())
    assert torch.equal(vdm.prompt_vector, before)
    back = load_adapter(adapter.save(tmp_path/'a'), vdm)
    assert torch.equal(back.state[PROMPT], adapter.state[PROMPT])
    with back.active(): assert torch.equal(vdm.prompt_vector, adapter.state[PROMPT])
