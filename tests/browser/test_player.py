"The gallery, used by hand: every button, key, swipe and list does what it says, on a desk and on a phone."
import numpy as np
import pytest

from gen2gen.player import Exhibit, viewer

pytestmark = pytest.mark.xdist_group('browser')
SHADES = [0, 40, 80, 120, 160, 200, 240]

def clip(k, frames=7, size=16):
    "Frame f of example k has the red value SHADES[f] and the green value 30·k: the page can be asked what it shows"
    v = np.zeros((frames, size, size, 3), np.uint8)
    v[..., 0] = np.array(SHADES[:frames])[:, None, None]
    v[..., 1] = 30*k
    return v

def page_of():
    rows = [Exhibit(clip(k), clip(k)[-1], 'dogs', f'dog{k}', score=f'iou 0.{k}') for k in range(3)]
    rows += [Exhibit(clip(3+k, 4), clip(3+k)[0], 'styles', 'cup', variant=v) for k, v in enumerate(('cubism', 'ukiyo-e'))]
    return '<!doctype html><meta name="viewport" content="width=device-width"><body style="margin:8px">' + viewer(rows, fps=20).data

PIXEL = '''e => { const r = e.getBoundingClientRect(), c = document.createElement('canvas'); c.width = c.height = 1;
  const i = e.querySelector('.g2g-sheet'), s = i.getBoundingClientRect(), k = i.naturalWidth / s.width;
  const x = c.getContext('2d'); x.drawImage(i, (r.left - s.left + r.width / 2) * k, (r.top - s.top + r.height / 2) * k, 1, 1, 0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data].slice(0, 3) }'''

class Gallery:
    def __init__(self, page): self.page, self.root = page, page.locator('.g2g-viewer')
    def shown(self):
        "(frame, example) as the visible pixels tell them"
        r, g, _ = self.root.locator('.g2g-item:visible .g2g-variant:visible .g2g-video .g2g-frame').evaluate(PIXEL)
        return min(range(len(SHADES)), key=lambda i: abs(SHADES[i]-r)), round(g/30)
    def settle(self, frame=None):
        "Wait until the video has played to its end"
        self.page.wait_for_function('f => { const r = document.querySelector(".g2g-viewer"); return r.style.getPropertyValue("--f") == f }', arg=str(6 if frame is None else frame))
    def title(self): return self.root.locator('.g2g-title').inner_text()
    def place(self): return self.root.locator('.g2g-place').inner_text()
    def press(self, label): self.root.get_by_label(label, exact=True).click()

def open_gallery(browser, width, touch=False):
    context, faults = browser.new_context(viewport=dict(width=width, height=800), has_touch=touch, is_mobile=touch), []
    page = context.new_page()
    page.on('request', lambda r: faults.append(r.url) if not r.url.startswith(('data:', 'about:', 'blob:')) else None)
    page.on('pageerror', lambda e: faults.append(str(e)))
    page.on('console', lambda m: faults.append(m.text) if m.type == 'error' else None)
    page.set_content(page_of())
    return context, Gallery(page), faults

@pytest.fixture(params=[1200, 390], ids=['desk', 'phone'])
def gallery(browser, request):
    context, g, faults = open_gallery(browser, request.param)
    yield g
    context.close()
    assert faults == [], 'it asks nobody and raises nothing'

def test_first_view(gallery):
    "The answer of the first example, with its truth and its score; nothing wider than the screen"
    assert gallery.shown() == (6, 0) and gallery.title() == 'dogs · dog0' and gallery.place() == '1 of 4'
    assert gallery.root.locator('.g2g-truth:visible').count() == 1 and gallery.root.locator('.g2g-score:visible').inner_text() == 'iou 0.0'
    assert gallery.page.evaluate('document.documentElement.scrollWidth <= innerWidth')

def test_buttons_go_round(gallery):
    gallery.press('next example'); gallery.settle()
    assert gallery.shown() == (6, 1)
    gallery.press('previous example'); gallery.press('previous example'); gallery.settle(3)
    assert gallery.shown()[1] == 3 and gallery.place() == '4 of 4'

def test_arrow_keys(gallery):
    gallery.root.focus()
    gallery.page.keyboard.press('ArrowRight'); gallery.page.keyboard.press('ArrowRight'); gallery.settle()
    assert gallery.shown() == (6, 2)
    gallery.page.keyboard.press('ArrowLeft'); gallery.settle()
    assert gallery.shown() == (6, 1)

def test_scrubber_steps_through_frames(gallery):
    bar = gallery.root.get_by_label('frame', exact=True)
    bar.focus()
    for f in (5, 4, 3):
        gallery.page.keyboard.press('ArrowLeft')
        assert gallery.shown() == (f, 0) and f'frame {f+1} of 7' in gallery.root.inner_text()
    gallery.page.keyboard.press('Home')
    assert gallery.shown() == (0, 0), 'arrows on the slider do not change the example'

def test_restart_plays_to_the_end(gallery):
    gallery.page.evaluate('''() => { window.seen = []; new MutationObserver(() => seen.push(document.querySelector('.g2g-viewer').style.getPropertyValue('--f')))
        .observe(document.querySelector('.g2g-viewer'), {attributes: true}) }''')
    gallery.press('restart the video')
    gallery.page.wait_for_function('seen.at(-1) == "6" && seen.length > 4')
    seen = gallery.page.evaluate('seen.map(Number)')
    assert 0 in seen and seen[seen.index(0):] == sorted(seen[seen.index(0):])

def test_compare(gallery):
    "The input lies over the answer, up to an edge that the slider moves"
    button = gallery.root.get_by_text('compare')
    button.click()
    over = gallery.root.locator('.g2g-over:visible')
    edge = lambda: over.evaluate('e => getComputedStyle(e).clipPath')
    assert over.count() == 1 and '50%' in edge()
    gallery.root.get_by_label('edge between input and answer').press('End')
    assert edge() in ('inset(0px)', 'inset(0px 0% 0px 0px)', 'inset(0px calc(0%) 0px 0px)'), edge()
    button.click()
    assert gallery.root.locator('.g2g-over:visible').count() == 0 and gallery.shown() == (6, 0)

def test_drag_the_edge(gallery):
    "In comparison a finger or mouse on the picture moves the edge, and does not go on to another example"
    gallery.root.get_by_text('compare').click()
    b = gallery.root.locator('.g2g-item:visible .g2g-video .g2g-frame').bounding_box()
    mouse, y = gallery.page.mouse, b['y']+b['height']/2
    mouse.move(b['x']+.6*b['width'], y); mouse.down(); mouse.move(b['x']+.4*b['width'], y, steps=3); mouse.move(b['x']+.25*b['width'], y); mouse.up()
    assert float(gallery.root.evaluate('e => parseFloat(e.style.getPropertyValue("--x"))')) == pytest.approx(25, abs=1)
    assert gallery.shown() == (6, 0) and not gallery.root.locator('dialog').is_visible()
    mouse.move(b['x']+.9*b['width'], y)
    assert float(gallery.root.evaluate('e => parseFloat(e.style.getPropertyValue("--x"))')) == pytest.approx(25, abs=1)

def test_small_pictures(gallery):
    "One for each example of the chosen task; a click goes there"
    thumbs = gallery.root.locator('.g2g-thumbs button')
    assert thumbs.count() == 4 and thumbs.nth(0).get_attribute('aria-current') is not None
    thumbs.nth(2).click(); gallery.settle()
    assert gallery.shown() == (6, 2) and [thumbs.nth(i).get_attribute('aria-current') is not None for i in range(4)] == [False, False, True, False]
    gallery.root.get_by_label('task').select_option('dogs')
    assert thumbs.count() == 3
    gallery.root.get_by_label('task').select_option('styles')
    assert gallery.root.locator('.g2g-thumbs:visible').count() == 0

def test_filter_and_dots(gallery):
    gallery.root.get_by_label('task').select_option('styles')
    assert gallery.place() == '1 of 1' and gallery.shown() == (3, 3) and gallery.title() == 'styles · cup · cubism'
    gallery.press('ukiyo-e')
    assert gallery.shown() == (3, 4) and gallery.root.get_by_label('ukiyo-e', exact=True).get_attribute('aria-pressed') == 'true'
    gallery.root.get_by_label('task').select_option('all tasks')
    assert gallery.place() == '1 of 4' and gallery.root.locator('.g2g-dots button').count() == 0

def test_enlarge(gallery):
    "A click enlarges, arrows go on inside, ×, Esc and the backdrop close"
    frame, box = gallery.root.locator('.g2g-item:visible .g2g-video .g2g-frame'), gallery.root.locator('dialog')
    small = frame.bounding_box()['width']
    frame.click()
    assert box.is_visible() and frame.bounding_box()['width'] >= min(small, 300)
    gallery.page.keyboard.press('ArrowRight'); gallery.settle()
    assert gallery.shown() == (6, 1)
    gallery.page.keyboard.press('Escape')
    assert not box.is_visible() and gallery.shown() == (6, 1)
    frame.click(); gallery.press('close')
    assert not box.is_visible()
    frame.click(); gallery.page.mouse.click(3, 3)
    assert not box.is_visible()

def test_swipe(gallery):
    b = gallery.root.locator('.g2g-item:visible .g2g-video .g2g-frame').bounding_box()
    y, x = b['y']+b['height']/2, b['x']+b['width']/2
    def swipe(dx):
        gallery.page.mouse.move(x-dx/2, y); gallery.page.mouse.down(); gallery.page.mouse.move(x+dx/2, y, steps=4); gallery.page.mouse.up()
    swipe(-90); gallery.settle()
    assert gallery.shown() == (6, 1) and not gallery.root.locator('dialog').is_visible()
    swipe(90); gallery.settle()
    assert gallery.shown() == (6, 0)

def test_finger(browser):
    "The same with a finger on a phone: touch events of the browser, not of a mouse"
    context, g, faults = open_gallery(browser, 390, touch=True)
    b = g.root.locator('.g2g-item:visible .g2g-video .g2g-frame').bounding_box()
    cdp, y = context.new_cdp_session(g.page), b['y']+b['height']/2
    send = lambda kind, x: cdp.send('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[] if kind == 'touchEnd' else [dict(x=x, y=y)]))
    send('touchStart', b['x']+b['width']*.8)
    for k in (.7, .5, .3, .2): send('touchMove', b['x']+b['width']*k)
    send('touchEnd', 0)
    g.settle()
    assert g.shown() == (6, 1)
    context.close()
    assert faults == []

def test_without_scripts_everything_is_there(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(page_of())
    assert page.locator('.g2g-variant:visible').count() == 5 and page.locator('.g2g-controls:visible').count() == 0
    context.close()

def test_two_on_one_page(browser):
    context = browser.new_context()
    page = context.new_page()
    page.set_content(page_of() + page_of())
    assert page.locator('.g2g-viewer[data-ready]').count() == 2
    page.locator('.g2g-next').nth(1).click()
    assert page.locator('.g2g-title').all_inner_texts() == ['dogs · dog0', 'dogs · dog1']
    context.close()
