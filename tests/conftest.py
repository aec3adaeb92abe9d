"What every test stands on: no network, one thread a process, and one headless Chromium a worker."
import os, shutil, time
for key, value in dict(HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', OMP_NUM_THREADS='1', MPLBACKEND='agg', IN_TEST='1', TOKENIZERS_PARALLELISM='false').items():
    os.environ.setdefault(key, value)

from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 900  # seconds until a wait gives up; it ends when its condition holds, so on a quiet machine this costs nothing
QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--disable-default-apps', '--disable-features=OptimizationHints,MediaRouter,Translate']

def eventually(condition, seconds=LIMIT):
    "Wait until `condition()` is true, and return what it gave"
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f'not within {seconds} s'
        time.sleep(.1)
    return result

@pytest.fixture(scope='session')
def root(): return ROOT

@pytest.fixture(scope='session')
def browser():
    "Debian's Chromium driven by playwright; where there is none, CI fails and a developer's run skips"
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if exe is None:
        (pytest.fail if os.environ.get('CI') else pytest.skip)('no Chromium on PATH: apt-get install chromium')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=exe, args=QUIET)
        new_context = chromium.new_context
        def patient(**options):
            "A context that waits as long as every other wait of the tests: the machine may be busy"
            context = new_context(**options)
            context.set_default_timeout(1000*LIMIT)
            return context
        chromium.new_context = patient
        yield chromium
        chromium.close()

def seeded(seed):
    "A torch generator"
    import torch
    return torch.Generator().manual_seed(seed)

@pytest.fixture(scope='module')
def own_cache(tmp_path_factory):
    "Latents are cached where nobody else looks"
    with pytest.MonkeyPatch.context() as m:
        m.setenv('GEN2GEN_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield

@pytest.fixture(scope='session')
def images():
    "Two noisy pictures, uint8 (2, 32, 32, 3)"
    import numpy as np
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)

@pytest.fixture(scope='session')
def flat_pair():
    "A pair of flat colours, 16×16 pixels"
    import numpy as np
    from gen2gen.pairs import Pairs
    return Pairs(*(np.full((1, 16, 16, 3), rgb, np.uint8) for rgb in ((95, 130, 194), (248, 194, 190))))

def random_adapter(vdm, rank=2, alpha=None, n_frames=9, seed=0):
    "An adapter whose weights are all far from zero"
    import torch
    from gen2gen.adapter import Adapter, lora_config, lora_on, lora_state
    config, g = lora_config(vdm, rank, alpha), seeded(seed)
    with lora_on(vdm, config) as name: state = lora_state(vdm, name)
    return Adapter(vdm, {k: torch.randn(v.shape, generator=g)*.3 for k, v in state.items()}, dict(n_frames=n_frames), config)

def frames_of(vdm, latents):
    "Frames in [0, 1], (n, F, H, W, 3), before they are rounded to bytes"
    import torch
    with torch.no_grad(): return (torch.cat([vdm.to_pixels(z[None]) for z in latents])/2+.5).clamp(0, 1).permute(0, 2, 3, 4, 1).numpy()

def sampled(vdm, images, generator, steps=2, n_frames=9):
    "What `sample` gives, before it is rounded to bytes"
    import torch
    with torch.no_grad(): return frames_of(vdm, vdm.denoise(*vdm.start(images, n_frames, generator), steps))
