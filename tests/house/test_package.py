"The package is what the notebooks say, and the wheel is all one needs."
import os, re, shutil, subprocess, sys, sysconfig, zipfile
import pytest
from conftest import ROOT
from nbrun import settings

def sh(*args, cwd=None, **env):
    "Run a command of this environment; its output, or the test fails with it"
    path = os.pathsep.join([sysconfig.get_path('scripts'), os.environ['PATH']])
    env = {**os.environ, 'PATH': path, **env}
    done = subprocess.run(list(map(str, args)), cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    assert done.returncode == 0, f'{args}\n{done.stdout[-3000:]}'
    return done.stdout

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A clean copy of what git would commit, as a repository of its own"
    to = tmp_path_factory.mktemp('copy')/'gen2gen'
    listed = sh('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', cwd=ROOT)
    for f in filter(None, listed.split('\0')):
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
    changed = sh('git', 'status', '--porcelain', cwd=copy)
    assert changed == '', sh('git', 'diff', '--stat', cwd=copy) + 'run: make export'

def test_readme_is_current(): sh(sys.executable, 'tools/docs.py', 'readme', '--check', cwd=ROOT)

def test_requirements_agree(): sh(sys.executable, '-m', 'pip', 'check')

def test_pins_cover_requirements():
    "Each package that settings.ini names has a pin"
    def normal(s): return re.sub(r'[-_.]+', '-', re.split(r'[<>=;\[]', s)[0]).lower()
    lines = [line.split(';')[0].strip() for line in (ROOT/'pins.txt').read_text().splitlines() if line[0] != '#']
    pinned = {normal(line) for line in lines if '==' in line}
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
    assert not [n for n in names if n.endswith('docs.py') or n.startswith(('tools/', 'tests/'))]

def test_one_command(wheel):
    "The shell gets `gen2gen` and nothing else"
    held = zipfile.ZipFile(wheel)
    text = next(held.read(n) for n in held.namelist() if n.endswith('entry_points.txt')).decode()
    scripts = text.split('[console_scripts]')[1].split('[')[0]
    assert scripts.split() == ['gen2gen', '=', 'gen2gen.cli:main']

def test_version():
    "One version, in settings.ini and in the package"
    import gen2gen
    assert gen2gen.__version__ == settings()['version']
    assert re.fullmatch(r'\d+\.\d+\.\d+(\.dev\d+)?', gen2gen.__version__)

def test_wheel_works_alone(wheel, tmp_path):
    "In an empty environment that sees this one's packages but not the checkout"
    sh(sys.executable, '-m', 'venv', tmp_path/'env')
    python = tmp_path/'env/bin/python'
    sh(python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', wheel)
    site = sh(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    with open(f'{site}/outer.pth', 'w') as f: f.write(sysconfig.get_path('purelib') + '\n')
    assert site in sh(python, '-c', 'import gen2gen; print(gen2gen.__file__)', cwd=tmp_path)
    assert 'finetune' in sh(tmp_path/'env/bin/gen2gen', '--help', cwd=tmp_path)
    count = 'import gen2gen; print(sum(p.numel() for p in gen2gen.load_vdm("tiny").transformer.parameters()))'
    assert int(sh(python, '-c', count, cwd=tmp_path).split()[-1]) > 100_000
