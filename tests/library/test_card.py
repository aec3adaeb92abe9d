"The script that measures full-size models on a card, on models a thousand times smaller: every model, every option."
import importlib.util, json
import pytest
import torch
from conftest import ROOT
from gen2gen.memory import FAMILIES, SETS, estimate

spec = importlib.util.spec_from_file_location('card', ROOT/'tools/card.py')
card = importlib.util.module_from_spec(spec)
spec.loader.exec_module(card)

def rows(file): return [json.loads(line) for line in file.read_text().splitlines()]

def measured(file, *args):
    card.main([str(file), '--small', '--device', 'cpu', '--steps', '4', '--sampler-steps', '2', *args])
    return rows(file)

@pytest.mark.parametrize('name', FAMILIES)
def test_every_model_goes_all_the_way(name, tmp_path):
    row, = measured(tmp_path/'card.jsonl', '--models', name, '--options', *SETS[-1])
    assert row.get('error') is None and row['model'] == name and tuple(row['options']) == SETS[-1]
    assert len(row['losses']) == 4 and all(0 < o < 100 for o in row['losses'])
    assert row['resumed_difference'] == 0 and row['loaded_difference'] == 0
    assert min(row[k] for k in ('encode_seconds', 'step_seconds', 'predict_seconds', 'floor_seconds')) > 0
    assert row['small'] and row['train_peak_gb'] is None # only a card counts its memory
    assert row['training_estimate_gb'] < .1 and estimate(name).weights > 1e9 # the published sizes are back

def test_every_option_and_what_is_known_is_not_measured_again(tmp_path, monkeypatch):
    file, compiled = tmp_path/'runs/card.jsonl', []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **kwargs: compiled.append(self)) # takes minutes
    found = measured(file, '--models', 'ltx-2b')
    assert [row.get('error') for row in found] == [None]*len(found)
    assert {'compile', 'fp8', 'group_offload'} <= {option for row in found for option in row['options']}
    assert len(compiled) == 3 # blocks
    assert measured(file, '--models', 'ltx-2b') == found

def test_a_case_that_fails_has_a_line_and_the_others_go_on(tmp_path, monkeypatch):
    file, real, error = tmp_path/'card.jsonl', card.random_vdm, MemoryError('out of memory\nand more')
    def full(name, *args):
        if name == 'ltx-2b': raise error
        return real(name, *args)
    monkeypatch.setattr(card, 'random_vdm', full)
    both = ('--models', 'ltx-2b', 'cogvideox-5b-i2v', '--options', 'checkpointing')
    bad, good = measured(file, *both)
    assert bad['error'] == 'MemoryError: out of memory' and 'error' not in good
    error = MemoryError() # says nothing
    assert measured(file, *both, '--retry')[-1]['error'].startswith('MemoryError')
    monkeypatch.undo()
    assert len(measured(file, *both)) == 3
    again = measured(file, *both, '--retry')
    assert [(row['model'], 'error' in row) for row in again[3:]] == [('ltx-2b', False)]

def test_time_and_what_cannot_be_meant(tmp_path, capsys):
    card.main([str(tmp_path/'card.jsonl'), '--small', '--device', 'cpu', '--minutes', '0'])
    assert 'the minutes are over' in capsys.readouterr().out and not (tmp_path/'card.jsonl').exists()
    with pytest.raises(SystemExit, match='at least 4'): measured(tmp_path/'x.jsonl', '--steps', '2')
