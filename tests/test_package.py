"The package is what the notebooks say, and the wheel is all one needs."
import shutil, subprocess, sys, sysconfig, zipfile
import pytest
from conftest import ROOT
from nbrun import settings

def sh(*args, cwd=None, **env):
    "Run a command of this environment; its output, or the test fails with it"
    import os
    path = os.pathsep.join([sysconfig.get_path('scripts'), os.environ['PATH']])
    done = subprocess.run(list(map(str, args)), cwd=cwd, env={**os.environ, 'PATH': path, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f'{args}\n{done.stdout[-3000:]}'
    return done.stdout

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A clean copy of what git would commit, as a repository of its own"
    to = tmp_path_factory.mktemp('copy')/'gen2gen'
    for f in filter(None, sh('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', cwd=ROOT).split('\0')):
        if (ROOT/f).is_file():
            (to/f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT/f, to/f)
    sh('git', 'init', '-q', cwd=to)
    sh('git', 'add', '-A', cwd=to)
    sh('git', '-c', 'user.name=t', '-c', 'user.email=t@t', 'commit', '-qm', 'copy', cwd=to)
    return to

def test_modules_are_what_the_notebooks_export(copy):
    sh('nbdev_export', cwd=copy)
    sh('nbdev_clean', cwd=copy)
    assert sh('git', 'status', '--porcelain', cwd=copy) == '', sh('git', 'diff', '--stat', cwd=copy) + 'run: make export'

def test_readme_is_current(): sh('gen2gen_docs', 'readme', '--check', cwd=ROOT)

def test_requirements_agree(): sh(sys.executable, '-m', 'pip', 'check')

def test_pins_cover_requirements():
    "Each package that settings.ini names has a pin"
    import re
    normal = lambda s: re.sub(r'[-_.]+', '-', re.split(r'[<>=;\[]', s)[0]).lower()
    pinned = {normal(l.split(';')[0].strip()) for l in (ROOT/'pins.txt').read_text().splitlines() if '==' in l and l[0] != '#'}
    named = {normal(r) for k in ('requirements', 'dev_requirements') for r in settings()[k].split()}
    assert named - pinned <= {'setuptools'}

@pytest.fixture(scope='module')
def wheel(copy, tmp_path_factory):
    out = tmp_path_factory.mktemp('wheel')
    sh(sys.executable, '-m', 'pip', 'wheel', copy, '--no-deps', '--no-build-isolation', '-q', '-w', out)
    return next(out.glob('gen2gen-*.whl'))

def test_wheel_holds_the_weights_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert [n for n in names if n.startswith('gen2gen/weights/') and n.endswith('.safetensors')]
    assert [n for n in names if n.startswith('gen2gen/weights/') and n.endswith('config.json')]
    assert {'gen2gen/assets/player.js', 'gen2gen/assets/player.css'} <= set(names)
    assert {n.split('/')[0] for n in names} - {'gen2gen'} == {n.split('/')[0] for n in names if '.dist-info/' in n}
    assert any(n.endswith('/LICENSE') for n in names)

def test_wheel_works_alone(wheel, tmp_path):
    "In an empty environment that sees this one's packages but not the checkout"
    sh(sys.executable, '-m', 'venv', tmp_path/'env')
    python = tmp_path/'env/bin/python'
    sh(python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', wheel)
    site = sh(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    with open(f'{site}/outer.pth', 'w') as f: f.write(sysconfig.get_path('purelib') + '\n')
    assert site in sh(python, '-c', 'import gen2gen; print(gen2gen.__file__)', cwd=tmp_path)
    assert 'finetune' in sh(tmp_path/'env/bin/gen2gen', '--help', cwd=tmp_path)
    told = sh(python, '-c', 'import gen2gen; v = gen2gen.load_vdm("tiny"); print(sum(p.numel() for p in v.transformer.parameters()))', cwd=tmp_path)
    assert int(told.split()[-1]) > 100_000
