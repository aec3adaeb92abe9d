"""Full-size pipelines of diffusers, small enough for a test: the real classes, a few hundred thousand random weights.

The pages and the tests of the full-size families stand on them. `blocks=True` gives a VAE that can be read: its latents
are the mean colours of blocks of pixels, so that an answer can be seen and a small model can learn a pair."""
import torch, transformers
from diffusers import (AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, AutoencoderKLWan, CogVideoXDDIMScheduler,
                       CogVideoXImageToVideoPipeline, CogVideoXTransformer3DModel, FlowMatchEulerDiscreteScheduler,
                       LTXImageToVideoPipeline, LTXVideoTransformer3DModel, UniPCMultistepScheduler,
                       WanImageToVideoPipeline, WanTransformer3DModel)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from gen2gen.fullsize import still

def small_text(kind='T5', width=16, seed=0):
    "Tokenizer and text encoder, as parts of a pipeline: one layer of T5 (CogVideoX, LTX) or UMT5 (Wan)"
    vocabulary = {c: i for i, c in enumerate(['<pad>', '</s>', '<unk>', *'abcdefghijklmnopqrstuvwxyz '])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    words.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
    words.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', 1)])
    special = dict(pad_token='<pad>', eos_token='</s>', unk_token='<unk>')
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    sizes = dict(vocab_size=len(vocabulary), d_model=width, d_kv=8, d_ff=2*width, num_layers=1, num_heads=2)
    config = getattr(transformers, f'{kind}Config')(**sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(tokenizer=tokenizer, text_encoder=getattr(transformers, f'{kind}EncoderModel')(config).eval())

@torch.no_grad()
def calibrated(vae, seed=0):
    """A random VAE whose latents depend on the picture, with the mean and scale of its latents in the configuration.

    A random VAE hardly sees its input: the biases win over the picture. So they are set to zero, the latents of a few
    pictures are measured, and the output is spread over the range of a picture."""
    coarse = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed))*2-1
    x = torch.nn.functional.interpolate(torch.cat([coarse, -coarse]), size=(64, 64), mode='bicubic').clamp(-1, 1)
    video = torch.stack([x]*3+[x.roll(3, 0)]*2, 2)
    for name, p in vae.named_parameters():
        if name.endswith('bias'): p.zero_()
    z, last = vae.encode(video).latent_dist.mode(), vae.decoder.conv_out
    vae.register_to_config(latents_mean=z.mean((0, 2, 3, 4)).tolist(), latents_std=z.std((0, 2, 3, 4)).tolist())
    last.weight *= .3/vae.decode(z).sample.std()
    return vae.eval()

# Every colour is carried with both signs, since silu(a) − silu(−a) = a. A large constant beside them turns the
# normalisation between the layers into a division by a known number.
BIG = 100.
SIGNS = torch.stack([torch.eye(3), -torch.eye(3)], 1).flatten(0, 1)  # rows r, −r, g, −g, b, −b

@torch.no_grad()
def average_blocks(vae):
    "Set a VAE's weights so that latents 0–2 are the mean colour of a block, and decoding paints the block with it"
    for p in vae.parameters(): p.zero_()
    by_class = {AutoencoderKLWan: _wan_blocks, AutoencoderKLCogVideoX: _cogvideox_blocks,
                AutoencoderKLLTXVideo: _ltx_blocks}
    by_class[type(vae)](vae)
    return vae.eval()

def _wan_blocks(vae):
    "Not residual, 12 channels in every block. A block is 8×8 pixels by 1 or 4 frames"
    enc, dec, colours = vae.encoder, vae.decoder, range(6)
    enc.conv_in.weight[:6, :, -1, 1, 1] = SIGNS
    dec.conv_in.weight[:6, :3, -1, 1, 1] = SIGNS
    for conv in (vae.quant_conv, vae.post_quant_conv): conv.weight[:, :, 0, 0, 0] = torch.eye(len(conv.weight))
    wanted = 'conv_in', 'resample.1', 'time_conv', 'conv_shortcut'
    for name, m in vae.named_modules():
        if not (name.endswith(wanted) and hasattr(m, 'weight')): continue
        down = name.startswith('encoder')
        if name.endswith('conv_shortcut'): m.weight[colours, colours, 0, 0, 0] = 1.
        elif name.endswith('resample.1') and down: m.weight[colours, colours, :2, :2] = .25
        elif name.endswith('resample.1'): m.weight[colours, colours, 1, 1] = 1.
        # of frames t−1, t, t+1 at a stride of 2
        elif name.endswith('time_conv') and down: m.weight[colours, colours, 1:, 0, 0] = .5
        elif name.endswith('time_conv'):  # each frame twice
            m.weight[colours, colours, -1, 0, 0] = m.weight[[12+i for i in colours], colours, -1, 0, 0] = 1.
        if len(m.weight) == 12: m.bias[6:] = BIG
    for half in (enc, dec): half.norm_out.gamma.fill_(1.)
    # the norm divides by √(6·BIG²/12)
    enc.conv_out.weight[:3, :6, -1, 1, 1] = dec.conv_out.weight[:, :6, -1, 1, 1] = SIGNS.T*BIG/2**.5

def _cogvideox_blocks(vae):
    "8 channels in every block and one group. A block is 4×4 pixels by 1 or 4 frames"
    enc, dec = vae.encoder, vae.decoder
    enc.conv_in.conv.weight[:6, :, -1, 1, 1] = SIGNS
    enc.conv_in.conv.bias[6:] = torch.tensor([BIG, -BIG])
    for block in enc.down_blocks:
        if not block.downsamplers: continue
        down = block.downsamplers[0]
        down.conv.weight[range(6), range(6), :2, :2] = .25
        down.conv.bias[6:] = torch.tensor([BIG, -BIG])
    enc.norm_out.weight.fill_(1.)
    enc.conv_out.conv.weight[:3, :6, -1, 1, 1] = SIGNS.T*BIG/2  # the norm divides by √(2·BIG²/8)
    enc.conv_out.conv.bias[vae.config.latent_channels:] = -8.
    dec.norm_out.conv_b.conv.weight[:6, :3, 0, 0, 0] = SIGNS
    dec.conv_out.conv.weight[:, :6, -1, 1, 1] = SIGNS.T

def _ltx_blocks(vae):
    "8 channels in every block, a patch of 1, no timestep. A block is 8×8 pixels by 1 or 8 frames"
    enc, dec = vae.encoder, vae.decoder
    vae.latents_mean.zero_()
    vae.latents_std.fill_(1.)
    enc.conv_in.conv.weight[:6, :, -1, 1, 1] = SIGNS
    enc.conv_in.conv.bias[6:] = BIG
    for down in (d for block in enc.down_blocks for d in block.downsamplers or ()):
        # outputs t, y, x of a stride of 2 see inputs 2t−2…2t, 2y−1…2y+1, 2x−1…2x+1; the mean of the pairs before them
        down.conv.weight[range(6), range(6), 1:, 1:, 1:] = .125
        down.conv.bias[6:] = BIG
    enc.conv_out.conv.weight[:3, :6, -1, 1, 1] = SIGNS.T*BIG/2
    enc.conv_out.conv.bias[vae.config.latent_channels:] = -8.
    dec.conv_in.conv.weight[:6, :3, 1, 1, 1] = SIGNS
    dec.conv_in.conv.bias[6:] = BIG
    for up in (u for block in dec.up_blocks for u in block.upsamplers or ()):
        for c in range(6): up.conv.conv.weight[8*c:8*c+8, c, 1, 1, 1] = 1.
        up.conv.conv.bias[48:] = BIG
    dec.conv_out.conv.weight[:, :6, 1, 1, 1] = SIGNS.T*BIG/2

WAN_KINDS = dict(  # those of 2.2-5B, 2.1-14B and 2.2-A14B
    ti2v=dict(in_channels=8, out_channels=8),
    i2v=dict(in_channels=12, out_channels=4, image_dim=16, added_kv_proj_dim=24),
    moe=dict(in_channels=12, out_channels=4))

def small_wan(kind='ti2v', seed=0, blocks=False, **changes):
    "A random Wan pipeline of a kind of `WAN_KINDS`; `changes` are of the transformer's configuration"
    ti2v, residual = kind == 'ti2v', kind == 'ti2v' and not blocks
    z = 8 if residual else 4
    config = dict(num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2,
                  rope_max_seq_len=32)
    config |= WAN_KINDS[kind]
    # the form of 2.1: the residual one cannot be set so simply
    if ti2v and blocks: config |= dict(in_channels=4, out_channels=4)
    config |= changes
    form = dict(base_dim=4 if residual else 12, z_dim=z, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                latents_mean=[0.]*z, latents_std=[1.]*z)
    if residual: form |= dict(is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16)
    scheduler = UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True,
                                        flow_shift=5. if ti2v else 3.)
    parts = small_text('UMT5', seed=seed) | dict(scheduler=scheduler, expand_timesteps=ti2v)
    with torch.random.fork_rng(devices=[]), still():
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(**form)
        parts['vae'] = average_blocks(vae) if blocks else calibrated(vae, seed)
        parts['transformer'] = WanTransformer3DModel(**config).eval()
        if kind == 'moe': parts |= dict(transformer_2=WanTransformer3DModel(**config).eval(), boundary_ratio=.9)
        if kind == 'i2v': parts |= _small_vision()
    return WanImageToVideoPipeline(**parts)

def _small_vision():
    "Image encoder and processor as parts of a pipeline"
    config = transformers.CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                                           num_attention_heads=2, image_size=16, patch_size=8)
    processor = transformers.CLIPImageProcessor(size=dict(shortest_edge=16), crop_size=dict(height=16, width=16))
    return dict(image_encoder=transformers.CLIPVisionModel(config).eval(), image_processor=processor)

def small_cogvideox(kind='1.5', seed=0, blocks=False):
    "A CogVideoX pipeline, 1.5 or 1.0, of 0.2 million random weights; its VAE has a space factor of 4"
    new = {'1.5': True, '1.0': False}[kind]
    side = 16 if new else 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(block_out_channels=(8, 8, 8), down_block_types=('CogVideoXDownBlock3D',)*3,
                                     up_block_types=('CogVideoXUpBlock3D',)*3, latent_channels=4, layers_per_block=1,
                                     norm_num_groups=1, scaling_factor=.7, invert_scale_latents=new)
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=4, attention_head_dim=16, in_channels=8, out_channels=4, num_layers=2,
            time_embed_dim=32, text_embed_dim=16, sample_width=side, sample_height=side,
            sample_frames=33 if new else 9, patch_size_t=2 if new else None, ofs_embed_dim=32 if new else None,
            patch_bias=not new, max_text_seq_length=8, use_rotary_positional_embeddings=True,
            use_learned_positional_embeddings=not new)
    scheduler = CogVideoXDDIMScheduler(beta_schedule='scaled_linear', prediction_type='v_prediction', clip_sample=False,
                                       rescale_betas_zero_snr=True, timestep_spacing='trailing', snr_shift_scale=1.)
    pipe = CogVideoXImageToVideoPipeline(vae=average_blocks(vae) if blocks else vae, transformer=transformer,
                                         scheduler=scheduler, **small_text('T5', 16, seed))
    pipe.set_progress_bar_config(disable=True)
    return pipe

def small_ltx(kind='0.9.0', seed=0, blocks=False):
    """An LTX-Video pipeline of 0.2 million random weights; its VAE has a space factor of 8.

    Kind 0.9.1 has a decoder that is told a timestep, and a scheduler without shift."""
    late = {'0.9.0': False, '0.9.1': True}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLLTXVideo(latent_channels=8, patch_size=1, timestep_conditioning=late,
                                    block_out_channels=(8,)*4, decoder_block_out_channels=(8,)*4,
                                    layers_per_block=(1,)*5, decoder_layers_per_block=(1,)*5)
        vae.latents_mean, vae.latents_std = .1*torch.randn(8), .5+torch.rand(8)
        transformer = LTXVideoTransformer3DModel(in_channels=8, out_channels=8, num_attention_heads=4,
                                                 attention_head_dim=16, cross_attention_dim=64, num_layers=2,
                                                 caption_channels=16)
    shift = {} if late else dict(use_dynamic_shifting=True, base_shift=.95, max_shift=2.05,
                                 base_image_seq_len=1024, max_image_seq_len=4096, shift_terminal=.1)
    pipe = LTXImageToVideoPipeline(FlowMatchEulerDiscreteScheduler(**shift), average_blocks(vae) if blocks else vae,
                                   transformer=transformer, **small_text('T5', 16, seed))
    pipe.set_progress_bar_config(disable=True)
    return pipe
