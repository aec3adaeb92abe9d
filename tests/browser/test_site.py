"The built site, read by a person in a browser: every page is there, nothing asks another machine, it fits a phone."
import functools, http.server, re, subprocess, threading
import nbformat, pytest
from conftest import ROOT
from nbrun import notebooks

pytestmark = pytest.mark.xdist_group('browser')

@pytest.fixture(scope='session')
def site(tmp_path_factory):
    pytest.importorskip('smalldocs')
    from docs import build
    out = tmp_path_factory.mktemp('site')/'_docs'
    build(ROOT, out)
    return out

@pytest.fixture(scope='session')
def address(site):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()

@pytest.fixture
def visit(browser, address):
    "Open a page; at the end, no request may have left this machine and the console must be silent"
    context, faults = browser.new_context(viewport=dict(width=1280, height=900)), []
    def route(r):
        if r.request.url.startswith((address, 'data:', 'blob:')): return r.continue_()
        faults.append(f'asks another machine: {r.request.url}')
        r.abort()
    context.route('**/*', route)
    def open_page(path, width=1280):
        page = context.new_page()
        page.set_viewport_size(dict(width=width, height=900))
        page.on('console', lambda m: faults.append(f'{path}: {m.text}') if m.type in ('error', 'warning') else None)
        page.on('pageerror', lambda e: faults.append(f'{path}: {e}'))
        page.on('response', lambda r: faults.append(f'{path}: {r.status} {r.url}') if r.status >= 400 else None)
        page.goto(address + path, wait_until='load')
        return page
    yield open_page
    context.close()
    assert faults == []

def page_names():
    "Notebook -> its page"
    named = {p.name: re.search(r'output-file: *(\S+)', nbformat.read(p, 4).cells[0].source) for p in notebooks()}
    return {k: m[1] if m else k.replace('.ipynb', '.html') for k, m in named.items()}

def test_every_notebook_has_its_page(site):
    assert {f'nbs/{n}' for n in page_names().values()} <= {str(p.relative_to(site)) for p in site.rglob('*.html')}

def test_root_leads_home(visit):
    page = visit('')
    page.wait_for_url('**/nbs/index.html')
    assert page.locator('h1').first.inner_text().strip()
    assert page.locator('main img, main video').first.evaluate('e => (e.naturalWidth || e.videoWidth || 1) > 0')

def test_sidebar(visit):
    page = visit('nbs/index.html')
    links = page.locator('#quarto-sidebar a.sidebar-link, #quarto-sidebar a')
    hrefs = {h.split('/')[-1] for h in links.evaluate_all('l => l.map(a => a.getAttribute("href") || "")')}
    assert set(page_names().values()) <= hrefs | {'index.html', ''}
    page.locator('#quarto-sidebar a[href$="pairs.html"]').first.click()
    page.wait_for_url('**/nbs/pairs.html')

def test_search(visit):
    page = visit('nbs/index.html')
    page.keyboard.press('/')
    page.locator('input[type=search], .aa-Input, #smalldocs-search input, input[placeholder*=earch]').first.fill('bootstrap')
    hit = page.locator('a[href*="metrics.html"]:visible').last
    hit.wait_for()
    hit.click()
    page.wait_for_url('**/nbs/metrics.html*')

def test_api_page(visit):
    "A function has a heading, its signature with a comment for each parameter, and a link to its source"
    page = visit('nbs/pairs.html')
    heading = page.locator('h3#load_pairs')
    signature = page.locator('h3#load_pairs ~ * pre.sourceCode, h3#load_pairs ~ pre').first.inner_text()
    assert heading.is_visible() and signature.startswith('def load_pairs(') and signature.count('#') >= 2
    source = page.locator('a', has_text='source').first.get_attribute('href')
    assert source.startswith('https://github.com/gen2gen/gen2gen/blob/main/gen2gen/pairs.py')

def test_figures_and_references(visit, site):
    "On every page: pictures are not broken, captions carry numbers, and links inside the site arrive"
    for name in page_names().values():
        page = visit(f'nbs/{name}')
        broken = page.locator('main img').evaluate_all('all => all.filter(i => i.complete && !i.naturalWidth).map(i => i.src.slice(0, 80))')
        assert broken == [], name
        assert not any('.qmd' in t for t in page.locator('main p').all_inner_texts()), f'{name}: a link within a link'
        text = page.locator('main').evaluate('e => { const c = e.cloneNode(true); c.querySelectorAll("pre, code, script, style").forEach(o => o.remove()); return c.textContent }')
        assert re.findall(r'\$[^$\n]{1,60}\$', text) == [], f'{name}: a formula that was not set'
        captions = [c for c in page.locator('main figcaption').all_inner_texts() if c.strip()]
        assert [c for c in captions if not re.match(r'Figure \d+: ', c)] == [], name
        for href in page.locator('main a[href*="#"]').evaluate_all('l => l.map(a => a.getAttribute("href"))'):
            path, _, anchor = href.partition('#')
            if path.startswith('http') or not anchor: continue
            target = site/'nbs'/(path or name)
            assert f'id="{anchor}"' in target.read_text(), f'{name}: {href} leads nowhere'
        page.close()

def test_player_under_the_styles_of_the_site(visit):
    "One frame of the sheet fills its frame: the site's own rules for pictures do not squeeze it"
    page = visit('nbs/player.html')
    sizes = page.locator('.g2g-item:visible .g2g-variant:visible').first.evaluate('''e => [e.dataset.frames, ...['.g2g-sheet', '.g2g-frame:has(.g2g-sheet)', '.g2g-truth img', '.g2g-truth .g2g-frame']
        .flatMap(s => { const r = e.querySelector(s).getBoundingClientRect(); return [r.width, r.height] })].map(Number)''')
    assert sizes[1:3] == pytest.approx([sizes[0]*sizes[3], sizes[4]], rel=.01) and sizes[5:7] == pytest.approx(sizes[7:9], rel=.01)

def test_figure_link(visit):
    "A click on 'Figure 1' brings figure 1 into view"
    page = visit('nbs/transitions.html')
    link = page.locator('main a[href^="#fig-"]').first
    anchor = link.get_attribute('href')
    link.click()
    page.wait_for_function('id => { const r = document.querySelector(id).getBoundingClientRect(); return r.top < innerHeight && r.bottom > 0 }', arg=anchor)

@pytest.mark.parametrize('name', page_names().values())
def test_phone(visit, name):
    page = visit(f'nbs/{name}', width=390)
    wide = page.evaluate('''() => {
        const scrolls = e => e && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement))
        const beyond = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.right > innerWidth + 1 }
        return [...document.querySelectorAll('main *')].filter(e => beyond(e) && !scrolls(e)).slice(0, 5)
            .map(e => e.outerHTML.slice(0, 120)) }''')
    assert wide == [] and page.evaluate('document.documentElement.scrollWidth <= innerWidth')

def test_markdown_is_sound(tmp_path):
    "A second reader of Quarto's Markdown, over the text of the filtered notebooks: labels, citations, fences"
    import yaml
    from docs import filtered
    filters = yaml.safe_load((ROOT/'_quarto.yml').read_text())['ipynb-filters']
    (tmp_path/'references.bib').write_bytes((ROOT/'nbs/references.bib').read_bytes())
    for p in notebooks():
        cells = filtered(p, ROOT, filters)['cells']
        keep = [c['source'] for c in cells if c['cell_type'] == 'markdown']
        labels = [re.search(r'^#\| *label: *(\S+)', c['source'], re.M) for c in cells if c['cell_type'] == 'code']
        keep += [f'::: {{#{m[1]}}}\n.\n:::' for m in labels if m]
        (tmp_path/f'{p.stem}.qmd').write_text('---\nbibliography: references.bib\n---\n\n' + '\n\n'.join(keep) + '\n')
    done = subprocess.run(['panache', 'lint', '--ignore', 'citation-nonbreaking-space', str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
