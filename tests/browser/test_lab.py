"The notebooks in a real JupyterLab, used as a person would: run all cells, move a slider, stop a run, browse answers."
import json, os, re, secrets, shutil, signal, socket, subprocess, sys, urllib.request
from pathlib import Path
import nbformat, pytest
from nbformat.v4 import new_code_cell, new_notebook
from conftest import ROOT, eventually
from gen2gen.pairs import load_images
from gen2gen.tasks import task

pytestmark = pytest.mark.xdist_group('lab')
SETTINGS = {'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
            'notebook-extension/tracker': dict(windowingMode='none')}  # every cell is in the page, not only those in view

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def answers(url):
    try: return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError: return False

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "A running JupyterLab over a copy of nbs/: its folder and its address with token"
    tmp = tmp_path_factory.mktemp('lab')
    shutil.copytree(ROOT/'nbs', tmp/'work/nbs', ignore=shutil.ignore_patterns('.*', '_*'))
    for name, values in SETTINGS.items():
        f = tmp/f'settings/@jupyterlab/{name}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(json.dumps(values))
    port, token = free_port(), secrets.token_hex(16)
    folders = {f'JUPYTER_{k.upper()}_DIR': str(tmp/k) for k in ('config', 'data', 'runtime')}
    env = {**os.environ, **folders, 'JUPYTERLAB_SETTINGS_DIR': str(tmp/'settings'), 'JUPYTERLAB_WORKSPACES_DIR': str(tmp/'workspaces'), 'JUPYTER_PREFER_ENV_PATH': '1'}
    with open(tmp/'log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--ServerApp.port={port}', '--ServerApp.port_retries=0',
            '--ServerApp.ip=127.0.0.1', f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={tmp/"work"}', '--LabApp.extension_manager=readonly'],
            env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        def answered():
            assert server.poll() is None, (tmp/'log').read_text()[-3000:]
            return answers(f'http://127.0.0.1:{port}/api?token={token}')
        eventually(answered)
        yield tmp/'work', lambda path: f'http://127.0.0.1:{port}/lab/workspaces/{Path(path).stem}/tree/{path}?token={token}'  # else an earlier notebook is opened again beside it
    finally:
        server.terminate()
        try: server.wait(15)
        except subprocess.TimeoutExpired: os.killpg(server.pid, signal.SIGKILL)

@pytest.fixture
def run_all(lab, browser):
    "Open a notebook and run all its cells; the page once every cell has run"
    context = browser.new_context(viewport=dict(width=1400, height=1000))
    def run(path):
        page = context.new_page()
        page.goto(lab[1](path))
        page.locator('.jp-NotebookPanel-toolbar').wait_for()
        page.get_by_text(re.compile(r'\| Idle$')).wait_for()  # the kernel, in the status bar
        numbers = lambda: page.locator('.jp-CodeCell').evaluate_all("""all => all.filter(c => c.querySelector('.cm-content')?.innerText.trim())
            .map(c => c.querySelector('.jp-InputPrompt').innerText)""")
        def started():  # a click that comes before the kernel has been connected is lost
            page.locator('.lm-MenuBar-item', has_text=re.compile('^Run$')).click()
            page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
            page.wait_for_timeout(2000)  # as long as a click may take to show; if it did not, the next round clicks again
            if page.locator('.jp-Dialog .jp-mod-accept').count(): page.locator('.jp-Dialog .jp-mod-accept').first.click()  # "Select kernel": this one
            return any(n.strip() != '[ ]:' for n in numbers())
        eventually(started)
        eventually(lambda: all(re.match(r'\[\d+\]', n) for n in numbers()))
        return page
    yield run
    context.close()

def errors(page): return page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()

def test_index_shows_its_prediction(lab, run_all):
    "index.ipynb, its stored outputs removed, runs to the picture of what the model predicts"
    path = lab[0]/'nbs/index.ipynb'
    nb = nbformat.read(path, 4)
    for c in nb.cells: c.update(outputs=[], execution_count=None) if c.cell_type == 'code' else None
    nbformat.write(nb, path)
    page = run_all('nbs/index.ipynb')
    assert errors(page) == []
    picture = page.locator('.jp-CodeCell', has_text='label: fig-prediction').locator('.jp-OutputArea-output img').first
    picture.wait_for()
    assert picture.evaluate('i => i.naturalWidth') > 100

SMALL = '''import numpy as np
from gen2gen import Pairs, explore_transition
a = np.zeros((1, 32, 32, 3), np.uint8)
explore_transition(Pairs(a, a + 200))'''

def test_transition_explorer(lab, run_all):
    "An arrow key on the slider shows another frame; another transition shows another picture"
    nbformat.write(new_notebook(cells=[new_code_cell(SMALL)], metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), lab[0]/'small.ipynb')
    page = run_all('small.ipynb')
    assert errors(page) == []
    page.locator('.g2g-explore').wait_for()
    page.evaluate('''window.shown = async () => { const i = document.querySelector('img.g2g-frame, .g2g-frame img');
        const b = new Uint8Array(await (await fetch(i.src)).arrayBuffer()); return b.join(',') }''')
    shown = lambda: page.evaluate('shown()')
    changed = lambda before: eventually(lambda: (now := shown()) != before and now)
    first = shown()
    slider = page.locator('.g2g-explore [role=slider], .g2g-explore .noUi-handle').first
    slider.focus()
    slider.press('ArrowRight')
    second = changed(first)
    slider.press('ArrowRight')
    third = changed(second)
    page.locator('.g2g-explore select').first.select_option('discrete')
    assert changed(third) == first, 'a cut still shows the input in its third frame of nine'

LIVE = ["""import numpy as np
from gen2gen.tasks import task
from gen2gen.tiny import Tiny, random_transformer
from gen2gen.player import exhibits, viewer
from gen2gen.widgets import browse_predictions, finetune_live""",
"""p = task("invert").pairs(4, size=16)
run = finetune_live(p[:2], Tiny(random_transformer(0, num_layers=1)), p[2:], steps=100_000, eval_every=5, every=.2)
run""",
"""from gen2gen.adapter import Predictions
from gen2gen.transitions import make_videos
out = Predictions.of(p.inputs, make_videos(p, "convex")[:, None])
browse_predictions(out, p)""",
"""viewer(exhibits(out, p, "negative"))"""]

def test_live_run_browser_and_gallery(lab, run_all):
    "The curve and the sample change while the run goes on; Stop ends it and says what was kept; answers and the gallery go on by a click"
    nbformat.write(new_notebook(cells=[new_code_cell(o) for o in LIVE], metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'))), lab[0]/'live.ipynb')
    page = run_all('live.ipynb')
    assert errors(page) == []
    source = lambda css: page.locator(css).first.evaluate("""async i => { const b = new Uint8Array(await (await fetch(i.src)).arrayBuffer());
        return [...b].reduce((h, x) => (31*h+x) >>> 0, 7) }""")
    page.locator('.g2g-run').wait_for()
    note = lambda: page.locator('.g2g-note').inner_text()
    eventually(lambda: 'best psnr' in note())
    first = source('img.g2g-curve, .g2g-curve img'), source('img.g2g-sample, .g2g-sample img')
    eventually(lambda: source('img.g2g-curve, .g2g-curve img') != first[0] and source('img.g2g-sample, .g2g-sample img') != first[1])
    page.locator('.g2g-run button', has_text='Stop').click()
    told = eventually(lambda: (now := note()).startswith('stopped') and now)
    assert 'best held-out psnr' in told and page.locator('.g2g-run button').first.is_disabled()

    answer = 'img.g2g-answer, .g2g-answer img'
    before, worst = source(answer), page.locator('.g2g-browse select').first.evaluate('s => s.selectedIndex')
    page.locator('.g2g-browse button[title="next picture"]').click()
    eventually(lambda: source(answer) != before)
    assert (worst, page.locator('.g2g-browse select').first.evaluate('s => s.selectedIndex')) == (0, 1)

    page.locator('.g2g-viewer[data-ready] .g2g-place').wait_for()
    page.locator('.g2g-viewer .g2g-next').click()
    assert page.locator('.g2g-viewer .g2g-place').inner_text() == '2 of 4'
    page.locator('.g2g-viewer').press('ArrowRight')
    assert page.locator('.g2g-viewer .g2g-place').inner_text() == '3 of 4', 'JupyterLab leaves the arrow keys to the gallery'

OWN = ["""from gen2gen import try_it
from gen2gen.tiny import Tiny, random_transformer""",
"""own = try_it(vdm=Tiny(random_transformer(0, num_layers=1)), steps=1000)
own"""]

def upload(page, button, files):
    "Choose files as a person does, by the browser's own dialog"
    with page.expect_file_chooser() as dialog: page.locator(f'button.g2g-{button}').click()
    dialog.value.set_files(files)

def test_own_pictures_in_one_cell(lab, run_all, tmp_path):
    "Files uploaded, a wrong name told, a run stopped, answers seen and downloaded; an error changes nothing"
    pairs = task('invert').pairs(3, size=32)
    pairs.save(tmp_path/'pairs')
    inputs, targets = (sorted((tmp_path/'pairs'/side).iterdir()) for side in ('input', 'target'))
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    nbformat.write(new_notebook(cells=[new_code_cell(o) for o in OWN], metadata=kernel), lab[0]/'own.ipynb')
    page = run_all('own.ipynb')
    assert errors(page) == []
    page.locator('.g2g-try').wait_for()
    told = lambda: page.locator('.g2g-told').inner_text()
    says = lambda words: eventually(lambda: words in told())
    upload(page, 'inputs', inputs)
    says('3 input pictures; now choose their targets')
    upload(page, 'targets', targets[:2])
    says('002.png: no file with the same stem in target/')
    upload(page, 'targets', targets)
    says('3 pairs, read as 64×64 pixels; press Learn')
    upload(page, 'new', inputs[:2])
    says('2 new pictures')
    page.locator('button.g2g-learn').click()
    note = page.locator('.g2g-try .g2g-note')
    eventually(lambda: note.count() and note.inner_text().startswith('step'))
    page.locator('.g2g-try .g2g-run button', has_text='Stop').click()
    says('answers to 000, 001')
    picture = page.locator('.g2g-answers img').first
    picture.wait_for()
    assert picture.evaluate('i => i.naturalWidth') > 200
    with page.expect_download() as zipped: page.locator('.g2g-download').click()
    zipped.value.save_as(tmp_path/'answers.zip')
    assert load_images(tmp_path/'answers.zip').shape == (2, 32, 32, 3)

    (tmp_path/'notes.png').write_text('no picture')
    upload(page, 'new', tmp_path/'notes.png')
    says('notes.png cannot be used')
    assert page.locator('.g2g-answers img').count() == 1 and page.locator('.g2g-download').count() == 1
