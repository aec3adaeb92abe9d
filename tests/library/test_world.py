"What pretraining must never see, such as test photographs, and how the modules of its world keep apart."
import ast, io
import numpy as np
import pytest
import torch
from PIL import Image
from conftest import ROOT
from gen2gen.bank import for_development, load_bank, members
from gen2gen.pairs import photos

DATA = ROOT.parent/'shared'/'data'
needs_data = pytest.mark.skipif(not (DATA/'pretraining').is_dir(), reason='the photographs of pretraining are not here')

def small(pictures):
    "Pictures (n, 3, h, w) uint8 as 8×8 pixels each, mean and contrast taken out: (n, 192)"
    x = torch.nn.functional.interpolate(pictures.float(), size=(8, 8), mode='area').flatten(1)
    x = x-x.mean(1, True)
    return x/x.norm(dim=1, keepdim=True).clamp_min(1e-6)

def pictures_of(path):
    "Every picture of a zip, (n, 3, 88, 88)"
    files = [data for name, data in members(path) if not name.endswith('.csv')]
    x = [Image.open(io.BytesIO(data())).convert('RGB').resize((88, 88)) for data in files]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in x])).movedim(-1, 1)

@needs_data
def test_no_photograph_of_a_test_is_shown():
    "No square of the bank looks like a test photograph or a task's photograph, mirrored or not"
    bank = small(load_bank(DATA/'pretraining'/'photos.zip').photos)
    test = pictures_of(DATA/'photos_test.zip')
    tasks = torch.from_numpy(photos(size=88)).movedim(-1, 1)
    for shown in (test, test.flip(-1), tasks, tasks.flip(-1)):
        alike = (small(shown)@bank.T).amax(1)
        assert alike.max() < .995, f'{int((alike >= .995).sum())} pictures are also in pretraining'

@needs_data
def test_development_photographs_are_set_aside():
    "The two halves of the bank share no file"
    names = [name for name, _ in members(DATA/'pretraining'/'photos.zip') if not name.endswith('.csv')]
    aside = [name for name in names if for_development(name)]
    assert 200 < len(aside) < 450 and len(aside) < .1*len(names)
    photographs = DATA/'pretraining'/'photos.zip'
    pretraining, development = load_bank(photographs), load_bank(photographs, development=True)
    assert sum(pretraining.sources.values()) == len(names)-len(aside)
    assert sum(development.sources.values()) == len(aside)

def public(path):
    "The names that a module exports"
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '__all__': return set(ast.literal_eval(node.value))
    return set()

def imported(name):
    "The modules of the package that a module imports at its head"
    body = ast.parse((ROOT/'gen2gen'/f'{name}.py').read_text(encoding='utf-8')).body
    return {node.module for node in body if isinstance(node, ast.ImportFrom) and node.level}

def test_modules_of_the_world_keep_apart():
    "Pictures do not know of clips, pretraining does not know of pairs, and kinds of clip are no names of a module"
    assert 'clips' not in imported('scenes') and not {'pretrain', 'tasks'} & imported('clips')
    assert not {'finetune', 'adapter', 'tasks'} & imported('pretrain')
    files = [path for path in (ROOT/'gen2gen').glob('*.py') if path.stem not in ('__init__', '_modidx')]
    modules = {path.stem: public(path) for path in files}
    assert len(modules['scenes'] | modules['clips']) <= 40
    for name in ('clips', 'rearc'):
        for other in modules.keys()-{name, 'docs'}: assert not modules[name] & modules[other], f'{name} and {other}'
