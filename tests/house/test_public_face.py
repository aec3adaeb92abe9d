"`import gen2gen as g` is quick, shows the public face, and `g.finetune` is the function whatever was imported before."
import subprocess, sys
from pathlib import Path

import pytest

import gen2gen as g

def fresh(code):
    "Run code in a new interpreter; its output."
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

@pytest.mark.parametrize("name", g.__all__)
def test_every_name_is_there(name): assert getattr(g, name) is getattr(sys.modules[f"gen2gen.{g._FACE[name]}"], name)

def test_names_are_listed(): assert set(g.__all__) <= set(dir(g)) and "__version__" in dir(g)
def test_unknown_name():
    with pytest.raises(AttributeError, match="'gen2gen' has no attribute 'fine_tune'"): g.fine_tune

def test_import_is_lazy():
    assert fresh("import sys, gen2gen; print([m for m in ('torch', 'diffusers', 'numpy', 'matplotlib') if m in sys.modules])") == "[]"

def test_pictures_and_metrics_need_no_torch():
    assert fresh("import sys, gen2gen as g; g.load_pairs, g.make_videos, g.METRICS, g.strip; print('torch' in sys.modules)") == "False"

@pytest.mark.parametrize("first", ["import gen2gen.train", "from gen2gen.train import finetune", "from gen2gen import finetune",
                                   "import gen2gen; gen2gen.finetune", "import gen2gen.evaluate"])
def test_finetune_is_the_function(first):
    assert fresh(f"{first}\nimport gen2gen as g, sys\nfrom gen2gen import finetune as f\n"
                 "print(callable(g.finetune), f is g.finetune is sys.modules['gen2gen.train'].finetune)") == "True True"

def test_no_name_of_the_face_is_a_module():
    "Python binds a submodule to its package when it is imported: the module would take the place of the function"
    assert not {p.stem for p in Path(g.__file__).parent.glob("*.py")} & set(g.__all__)

def test_submodules_stay_reachable():
    assert fresh("import gen2gen.pairs, gen2gen.transitions as t; print(gen2gen.pairs.__name__, t.__name__)") == "gen2gen.pairs gen2gen.transitions"
