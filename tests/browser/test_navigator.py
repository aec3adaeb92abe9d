"The navigator in a browser: keys, dots, attempts, videos, enlarging, a phone's width; nothing is asked of another machine."
import json

import numpy as np
import pytest

from gen2gen.arc import Puzzle
from gen2gen.navigator import models_beside, navigator, navigator_page, problem

pytestmark = pytest.mark.xdist_group('browser')
A, B = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[6, 7], [8, 9], [0, 1]])
VIDEO = np.stack([np.full((8, 12, 3), 60*i, np.uint8) for i in range(4)])

def problems():
    "Three problems of two concepts: right at the second attempt, wrong, not run"
    p = [Puzzle(f'{c}{i}', c, ((A, B), (B, A)), (A,)) for i, c in enumerate(('Copy', 'Count', 'Count'))]
    return [problem(p[0], 0, [A, B], B, [VIDEO, VIDEO], 'rule'), problem(p[1], 0, [A], B), problem(p[2], 0)]

@pytest.fixture
def page(browser):
    context, faults = browser.new_context(viewport=dict(width=900, height=800)), []
    context.route('**/*', lambda r: r.continue_() if r.request.url.startswith(('data:', 'about:')) else (faults.append(r.request.url), r.abort()))
    page = context.new_page()
    page.on('console', lambda m: faults.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda e: faults.append(str(e)))
    page.set_content(navigator_page(problems()))
    yield page
    context.close()
    assert faults == []

title = lambda page: page.locator('#title').inner_text()

def test_keys_and_arrows(page):
    assert 'Copy0, test 1' in title(page) and '✓' in title(page) and page.locator('#at').inner_text() == '1 / 3'
    page.keyboard.press('ArrowRight')
    assert 'Count1' in title(page) and '✗' in title(page)
    page.locator('#next').click()
    assert 'Count2' in title(page) and '–' in title(page) and 'not run' in page.locator('#test').inner_text()
    page.keyboard.press('ArrowRight')
    assert 'Copy0' in title(page)
    page.keyboard.press('ArrowLeft')
    assert 'Count2' in title(page)

def test_dots_choose_a_concept(page):
    dots = page.locator('.g2g-dots button')
    assert dots.evaluate_all('d => d.map(e => e.title)') == ['Copy', 'Count']
    dots.nth(1).click()
    assert 'Count1' in title(page) and dots.nth(1).get_attribute('aria-pressed') == 'true'

def colour(page, which, row, column, cells):
    "Colour of one cell of a drawn grid"
    return page.locator(f'#test figure:nth-of-type({which}) canvas').evaluate('''(c, [i, j, h, w]) => [...c.getContext('2d').getImageData((j+.5)*c.width/w, (i+.5)*c.height/h, 1, 1).data].slice(0, 3)''', [row, column, *cells])

def test_attempts_marks_and_grids(page):
    assert page.locator('#tries button').all_inner_texts() == ['attempt 1 ✗ wrong', 'attempt 2 ✓ right']
    assert page.locator('#test figcaption').all_inner_texts()[:3] == ['test input', 'prediction', 'truth']
    assert colour(page, 2, 0, 1, (2, 3)) == [0, 116, 217], 'attempt 1 is the grid A'
    page.keyboard.press('2')
    assert page.locator('#tries button').nth(1).get_attribute('aria-pressed') == 'true'
    assert colour(page, 2, 0, 0, (3, 2)) == colour(page, 3, 0, 0, (3, 2)) == [240, 18, 190]
    assert page.locator('#demos .pair').count() == 2 and 'rule' in page.locator('#how').inner_text()

def test_video_plays_to_its_last_frame(page):
    video = page.locator('canvas.video')
    page.wait_for_function("document.querySelector('canvas.video').dataset.frame === '3'")
    assert video.evaluate("c => c.getContext('2d').getImageData(3, 3, 1, 1).data[0]") == 180
    video.click()
    assert video.get_attribute('data-frame') in '012'

def test_enlarge_with_mouse_and_keyboard(page):
    small = page.locator('#test canvas').first
    width = small.bounding_box()['width']
    small.click()
    big = page.locator('#big canvas')
    assert big.bounding_box()['width'] > 2*width
    page.keyboard.press('ArrowRight')
    assert 'Copy0' in title(page), 'the page below stays where it is'
    page.keyboard.press('Escape')
    assert not page.locator('#big').is_visible() and small.evaluate('e => e === document.activeElement')
    page.keyboard.press('Enter')
    assert page.locator('#big').is_visible()
    page.locator('#close').click()
    assert not page.locator('#big').is_visible()

def test_phone(page):
    page.set_viewport_size(dict(width=360, height=700))
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')

def test_in_a_frame_as_on_the_site(browser):
    context = browser.new_context()
    page = context.new_page()
    page.set_content(f'<body>{navigator(problems()).data}</body>')
    frame = page.frame_locator('iframe')
    frame.locator('#next').click()
    assert 'Count1' in frame.locator('#title').inner_text()
    context.close()

def test_names_cannot_leave_their_place(browser):
    p = Puzzle('</script><img src=x onerror=window.bad=1>', '<b>', ((A, B),), (A,))
    page = browser.new_page()
    page.set_content(f'<body>{navigator([problem(p, 0)]).data}</body>')
    assert '<img' in page.frame_locator('iframe').locator('#title').inner_text()
    assert page.frames[1].evaluate('window.bad') is None
    page.close()

def test_two_models_side_by_side(page):
    "Attempts are counted for each model, and the mark of a problem is that of the first"
    p = Puzzle('Copy0', 'Copy', ((A, B), (B, A)), (A,))
    page.set_content(navigator_page(models_beside({'newer': [problem(p, 0, [A], B)], 'older': [problem(p, 0, [A, B], B)]})))
    names = page.locator('#tries button').all_inner_texts()
    assert names == ['newer: attempt 1 ✗ wrong', 'older: attempt 1 ✗ wrong', 'older: attempt 2 ✓ right']
    assert '✗' in title(page)
    page.keyboard.press('3')
    assert page.locator('#tries button').nth(2).get_attribute('aria-pressed') == 'true'
