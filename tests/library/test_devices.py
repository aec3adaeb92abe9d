"The world is made where its generator lives: no tensor is made without saying on which device."
import pytest, torch
from torch.overrides import TorchFunctionMode
from gen2gen.bank import Bank, packaged_bank
from gen2gen.clips import KINDS, draw_clips
from gen2gen.codec_training import codec_batch
from gen2gen.scenes import Dice

NAMES = 'arange', 'empty', 'eye', 'full', 'linspace', 'ones', 'rand', 'randint', 'randn', 'tensor', 'zeros'
FACTORIES = {getattr(torch, name) for name in NAMES}

class Placed(TorchFunctionMode):
    "Refuses to make a tensor on the default device"
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        placed = func not in FACTORIES or kwargs.get('device') is not None
        assert placed, f'{func.__name__} makes a tensor without saying where'
        return func(*args, **kwargs)

@pytest.fixture(scope='module')
def dice():
    "A generator whose bank has videos and enough photographs to be drawn from everywhere"
    photos = packaged_bank().photos
    video = torch.randint(0, 256, (2, 6, 3, 88, 88), dtype=torch.uint8)
    return Dice(0, bank=Bank(photos.repeat(9, 1, 1, 1), video, torch.tensor([6, 4]), torch.ones(2)))

@pytest.mark.parametrize('kind', KINDS)
def test_clips_say_where(kind, dice):
    with Placed(): v, *_ = draw_clips(6, 32, 3, dice, kinds=[kind], captions=True, compose=1.)
    assert v.isfinite().all()

def test_codec_pictures_say_where(dice):
    with Placed(): x = codec_batch(48, 32, dice)
    assert x.isfinite().all()
