"Data sets by name, against a server on this machine: resumed, checked, cached, refused; and the folders to measure with, where they are."
import hashlib, http.server, threading
import numpy as np
import pytest
from conftest import ROOT

from gen2gen import sources
from gen2gen.pairs import load_pairs
from gen2gen.sources import fetch, load_poses, load_source
from gen2gen.pose import read_joints
from gen2gen.tasks import task

DATA = ROOT.parent/'shared'/'data'
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason='the folders to measure with are not here')
BODY = np.random.default_rng(0).bytes(300_000)
MD5 = 'md5:' + hashlib.md5(BODY).hexdigest()

@pytest.fixture
def server():
    "A server that cuts the first answer short, honours Range, and remembers what it was asked"
    asked = []
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self):
            start = int((self.headers.get('Range') or 'bytes=0-')[6:-1])
            asked.append(start)
            if self.path != '/big.bin': return self.send_error(404)
            if start >= len(BODY): return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header('Content-Length', str(len(BODY)-start))
            self.end_headers()
            self.wfile.write(BODY[start:start+100_000] if len(asked) == 1 else BODY[start:])
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}', asked
    s.shutdown(); s.server_close()

def test_a_cut_download_goes_on(server, tmp_path):
    url, asked = server
    with pytest.raises(ConnectionError, match='call again to go on'): fetch(f'{url}/big.bin', MD5, tmp_path)
    assert not (tmp_path/'big.bin').exists() and (tmp_path/'big.bin.part').stat().st_size == 100_000
    assert fetch(f'{url}/big.bin', MD5, tmp_path).read_bytes() == BODY and asked == [0, 100_000]
    fetch(f'{url}/big.bin', MD5, tmp_path)
    assert len(asked) == 2, 'a file that is there is not asked for again'

def test_killed_after_the_last_byte(server, tmp_path):
    "Only the renaming was missing: the server has nothing to add"
    (tmp_path/'big.bin.part').write_bytes(BODY)
    assert fetch(f'{server[0]}/big.bin', MD5, tmp_path).read_bytes() == BODY

def test_wrong_bytes_are_removed(server, tmp_path):
    (tmp_path/'big.bin.part').write_bytes(b'x'*1000)
    server[1].append(0)
    with pytest.raises(ValueError, match='damaged or was changed'): fetch(f'{server[0]}/big.bin', MD5, tmp_path)
    assert list(tmp_path.iterdir()) == []

def test_the_first_download_is_remembered(server, tmp_path):
    "Without a checksum the first one counts: written for sha256sum, asked of every later download"
    server[1].append(0)
    path = fetch(f'{server[0]}/big.bin', None, tmp_path)
    assert (tmp_path/'big.bin.sha256').read_text() == f'{hashlib.sha256(BODY).hexdigest()}  big.bin\n'
    path.unlink()
    assert fetch(f'{server[0]}/big.bin', None, tmp_path).read_bytes() == BODY
    path.unlink()
    (tmp_path/'big.bin.part').write_bytes(b'x'*1000)
    with pytest.raises(ValueError, match='damaged or was changed'): fetch(f'{server[0]}/big.bin', None, tmp_path)
    assert [o.name for o in tmp_path.iterdir()] == ['big.bin.sha256']

def test_offline_and_absent(server, tmp_path):
    with pytest.raises(ConnectionError, match='cannot be fetched.*put the file at'): fetch('http://127.0.0.1:9/big.bin', None, tmp_path, timeout=5)
    with pytest.raises(ConnectionError, match='Not Found'): fetch(f'{server[0]}/small.bin', None, tmp_path)

def test_nothing_is_fetched_for_a_wrong_call(monkeypatch):
    monkeypatch.setattr(sources, 'urlopen', lambda *a, **k: pytest.fail('it asked the network'))
    with pytest.raises(ValueError, match="no source 'cats'"): load_source('cats')
    with pytest.raises(ValueError, match="split='val'"): load_source('oxford-pets', split='val')

def test_licence_is_told_before_anything_else(tmp_path, capsys):
    with pytest.raises(ConnectionError): load_source('oxford-pets', server='http://127.0.0.1:9', folder=tmp_path)
    assert 'CC BY-SA 4.0' in capsys.readouterr().out

def test_without_datasets(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'datasets', None)
    with pytest.raises(ImportError, match=r'pip install gen2gen\[data\]'): sources.load_hf('someone/something')

def test_a_link_out_of_a_tar_is_refused(tmp_path):
    import tarfile
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as t:
        i = tarfile.TarInfo('x'); i.type = tarfile.SYMTYPE; i.linkname = '/etc'
        t.addfile(i)
    with pytest.raises(ValueError, match='cannot be unpacked'): sources.unpack(tmp_path/'a.tar.gz')
    assert not (tmp_path/'a').exists()

@needs_data
def test_people():
    "The labelled joints come back from the pose pictures of real people"
    p = load_poses(DATA/'poses', 64)
    found = ~np.isnan(read_joints(p.targets)[..., 0])
    assert p.size == (64, 64) and len(p) == 160 and found.sum(1).mean() > 10

@needs_data
def test_horses():
    p = load_pairs(DATA/'horses', 32, 'pad', ground=(0, 0, 0))
    few = task('mask').pairs(30, source=p)
    assert len(few) == 30 and few.size == (32, 32) and 0 < (few.targets > 127).mean() < .6

def test_a_folder_is_a_task(tmp_path):
    task('hflip').pairs(5, size=16).save(tmp_path/'mine')
    t = task(tmp_path/'mine')
    assert (t.name, t.n, t.metric) == ('mine', 5, 'psnr')
    assert (t.pairs(2, seed=3, size=16).targets == t.pairs(5, seed=3, size=16).targets[:2]).all()
    with pytest.raises(ValueError, match='n=6: there are 5'): t.pairs(6, size=16)
    with pytest.raises(ValueError, match='did you mean .hflip'): task('hfilp')
