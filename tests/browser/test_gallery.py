"The gallery page, made by its notebook from files as the task pages keep them, and used by hand: on a desk and on a phone."
import json
from pathlib import Path
from urllib.parse import urlparse
import nbformat, pytest
from conftest import ROOT
from nbrun import run
from test_player import Gallery, clip

from gen2gen.player import Exhibit, save_exhibits

pytestmark = pytest.mark.xdist_group('browser')

@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    "The page with the files of two task pages, and with none: the HTML that the notebook shows"
    folder = tmp_path_factory.mktemp('kept')
    save_exhibits([Exhibit(clip(k), clip(k)[-1], 'mask', f'00{k}', score=f'iou 0.{k}', note='30 pairs') for k in range(3)], folder/'segmentation.json')
    save_exhibits([Exhibit(clip(3+k, 4), clip(3+k)[0], 'styles', 'cup', variant=v, note='1 pair') for k, v in enumerate(('cubism', 'ukiyo_e'))], folder/'style.json')
    def html(media):
        nb = run(ROOT/'nbs/29_gallery.ipynb', folder/'executed.ipynb', dict(media=str(media), results=str(media)))
        return ''.join(''.join(o['data']['text/html']) for c in nb.cells if c.cell_type == 'code' for o in c.outputs if 'text/html' in o.get('data', {})), str(nb.cells)
    return html(folder), html(folder/'nothing')

@pytest.fixture(params=[1280, 390], ids=['desk', 'phone'])
def gallery(browser, pages, request):
    "The page at an address of its own; only the files it names are answered, everything else is a fault"
    context, faults = browser.new_context(viewport=dict(width=request.param, height=844), has_touch=request.param < 500), []
    def answer(route):
        path = urlparse(route.request.url).path
        if path == '/nbs/gallery.html': return route.fulfill(body=f'<!doctype html><meta name="viewport" content="width=device-width"><body>{pages[0][0]}', content_type='text/html; charset=utf-8')
        if path.endswith('.webp') and Path(path).exists(): return route.fulfill(path=path)
        faults.append(route.request.url); route.abort()
    context.route('**/*', answer)
    page = context.new_page()
    page.on('pageerror', lambda e: faults.append(str(e)))
    page.on('request', lambda r: faults.append(r.url) if urlparse(r.url).hostname not in ('gallery.test', None) and not r.url.startswith('data:') else None)
    page.goto('http://gallery.test/nbs/gallery.html')
    yield Gallery(page)
    context.close()
    assert faults == []

def test_without_files(pages):
    html, everything = pages[1]
    assert 'Not run: no task page has kept videos yet' in html and 'g2g-viewer' not in html and html.count('not run') == 7

def test_what_is_told(gallery):
    "Answer, truth, score and how it was made; the pictures are linked, not inside; nothing is wider than the screen"
    root = gallery.root
    assert gallery.shown() == (3, 3) and gallery.title() == 'styles · cup · cubism' and gallery.place() == '1 of 4'
    gallery.press('next example'); gallery.settle()
    assert gallery.shown() == (6, 0) and root.locator('.g2g-truth:visible').count() == 1
    assert root.locator('.g2g-score:visible').inner_text() == 'iou 0.0' and root.locator('.g2g-note:visible').inner_text() == '30 pairs'
    assert root.locator('img').evaluate_all('l => l.every(i => i.naturalWidth > 1 && !i.src.startsWith("data:"))')
    assert gallery.page.evaluate('document.documentElement.scrollWidth <= innerWidth')

def test_every_interaction(gallery):
    "Filter, scrubber, before and after, enlarging, arrows, swipe, restart, dots"
    root, page = gallery.root, gallery.page
    root.get_by_label('task').select_option('mask')
    assert gallery.place() == '1 of 3' and root.locator('.g2g-thumbs button').count() == 3
    bar = root.get_by_label('frame', exact=True)
    bar.focus(); page.keyboard.press('ArrowLeft'); page.keyboard.press('ArrowLeft')
    assert gallery.shown() == (4, 0) and 'frame 5 of 7' in root.inner_text()
    gallery.press('restart the video'); gallery.settle()
    assert gallery.shown() == (6, 0)
    root.get_by_text('compare').click()
    root.get_by_label('edge between input and answer').press('End')
    assert root.locator('.g2g-over:visible').count() == 1 and root.evaluate('e => e.style.getPropertyValue("--x")') == '100%'
    root.get_by_text('compare').click()
    frame = root.locator('.g2g-item:visible .g2g-video .g2g-frame')
    frame.click()
    assert root.locator('dialog').is_visible()
    page.keyboard.press('ArrowRight'); gallery.settle()
    assert gallery.shown() == (6, 1)
    page.keyboard.press('Escape')
    assert not root.locator('dialog').is_visible()
    b = frame.bounding_box()
    page.mouse.move(b['x']+.8*b['width'], b['y']+b['height']/2); page.mouse.down(); page.mouse.move(b['x']+.2*b['width'], b['y']+b['height']/2, steps=4); page.mouse.up()
    gallery.settle()
    assert gallery.shown() == (6, 2)
    root.get_by_label('task').select_option('styles')
    gallery.press('ukiyo_e')
    assert gallery.shown() == (3, 4) and gallery.title() == 'styles · cup · ukiyo_e'

def test_the_published_page_is_current():
    "What the stored page names is what the task pages have kept"
    stored = ''.join(str(c.outputs) for c in nbformat.read(ROOT/'nbs/29_gallery.ipynb', 4).cells if c.cell_type == 'code')
    for path in (ROOT/'nbs/media/gallery').glob('*.json'):
        assert f'media/gallery/{path.stem}.webp' in stored, f'execute 29_gallery.ipynb: it does not show {path.name}'
        assert [e['score'] for e in json.loads(path.read_text(encoding='utf-8'))['exhibits'] if e['score'] not in stored] == [], f'execute 29_gallery.ipynb: {path.name} has other scores'
