"Which module may import which: the floors of the house, from the ground up."
import ast, re
import pytest
from conftest import ROOT

# Each room imports only from floors below its own, or from its left on its own floor. No two rooms import each other.
FLOORS = dict(
    ground='devices files',
    data='pairs transitions metrics check settings',
    pictures='show player',
    models='flow vdm codec tiny canvas tiny_arc fullsize wan cogvideox ltx memory registry',
    learning='adapter train controls evaluate widgets',
    world='bank scenes clips muon codec_training pretrain',
    tasks='pose tasks sources recipe',
    puzzles='arc arc_learn rearc rules sweep arc_solve navigator',
    front='cli __main__')
PLACE = {room: (floor, place) for floor, rooms in enumerate(FLOORS.values())
         for place, room in enumerate(rooms.split())}
ROOMS = sorted(p.stem for p in (ROOT/'gen2gen').glob('*.py') if p.stem not in ('__init__', '_modidx'))
LOADERS = re.compile(r'gen2gen\.(\w+)(?::\w+)?')  # as the registry has them: 'gen2gen.tiny:load_tiny'

def imports(room):
    "The modules of the package that a module imports, inside functions and by name too"
    found = set()
    for node in ast.walk(ast.parse((ROOT/'gen2gen'/f'{room}.py').read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or '').split('.')[0] == 'gen2gen'):
            path = (node.module or '').removeprefix('gen2gen').strip('.')
            found |= {path} if path else {a.name for a in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and LOADERS.fullmatch(node.value):
            found.add(LOADERS.fullmatch(node.value)[1])
    return found & set(ROOMS)

@pytest.mark.parametrize('room', ROOMS)
def test_arrows_point_down(room):
    assert room in PLACE, f'{room} has no place in FLOORS'
    wrong = sorted(other for other in imports(room) if PLACE[other] >= PLACE[room])
    assert not wrong, f'{room} imports {", ".join(wrong)}, which stands above it or on its right'

def test_the_test_sees_imports():
    assert imports('registry') >= {'vdm', 'tiny', 'wan', 'memory', 'fullsize'}
    assert imports('wan') >= {'fullsize', 'flow'}

# The families of full-size models have these names in common: `memory` asks each family for its own.
FAMILY = {'TRANSFORMER', 'VAE', 'CONFIGS', 'meta_inputs'}

def test_public_names_stand_once():
    "A public name is in one module only; the commands of the shell are called as what they run"
    where = {}
    for room in ROOMS:
        if room in ('cli', '__main__'): continue
        for node in ast.parse((ROOT/'gen2gen'/f'{room}.py').read_text(encoding='utf-8')).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
                for name in ast.literal_eval(node.value): where.setdefault(name, []).append(room)
    assert {name: rooms for name, rooms in where.items() if len(rooms) > 1 and name not in FAMILY} == {}
