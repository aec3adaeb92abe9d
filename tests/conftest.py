"What every test stands on: no network, one thread a process, and one headless Chromium a worker."
import os, shutil
for key, value in dict(HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', OMP_NUM_THREADS='1', MPLBACKEND='agg', IN_TEST='1', TOKENIZERS_PARALLELISM='false').items():
    os.environ.setdefault(key, value)

from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--disable-default-apps', '--disable-features=OptimizationHints,MediaRouter,Translate']

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
        yield chromium
        chromium.close()
