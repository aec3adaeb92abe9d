"Pictures, videos and widgets of `show`: the files are whole and playable, the pages self-contained, and sliders move."
import errno, re
from io import BytesIO

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from gen2gen import show
from gen2gen.pairs import Pairs, photos
from gen2gen.transitions import TRANSITIONS, make_videos

pairs = Pairs(photos(["coffee", "rocket"], size=32), photos(["chelsea", "china"], size=32), ["one", "two"])
video = make_videos(pairs, "convex")[0]

def stream(path):
    "Properties and frames of a video, decoded by ffmpeg."
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    w, h = meta["size"]
    return meta, np.stack([np.frombuffer(o, np.uint8).reshape(h, w, 3) for o in frames])

@pytest.mark.parametrize("shape,size", [((9, 32, 32), (256, 256)), ((2, 33, 47), (264, 376)), ((3, 257, 301), (258, 302)), ((17, 64, 96), (256, 384))])
def test_video_plays(tmp_path, shape, size):
    frames = np.random.default_rng(0).integers(0, 256, (shape[0], 1, 1, 3), dtype=np.uint8).repeat(shape[1], 1).repeat(shape[2], 2)
    meta, back = stream(show.save_video(frames, tmp_path/"new"/"v.mp4"))
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 8
    assert back.shape == (shape[0], *size, 3)
    assert np.abs(back.mean((1, 2)) - frames.mean((1, 2))).max() < 6
    assert [p.name for p in (tmp_path/"new").iterdir()] == ["v.mp4"]

def test_last_frame_of_the_video_is_the_target(tmp_path):
    _, back = stream(show.save_video(video, tmp_path/"v.mp4"))
    assert np.abs(back[-1].astype(int) - show.enlarge(pairs.targets[0])).mean() < 6

def test_failed_video_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path/"v.mp4"; path.write_bytes(b"old")
    class Full:
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def append_data(self, frame): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(show.iio, "get_writer", lambda part, **_: open(part, "wb").close() or Full())
    with pytest.raises(OSError, match="No space left"): show.save_video(video, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

@pytest.mark.parametrize("page", [lambda: show.before_after(video[0], video[-1], ("<in>", 'a "b"')), lambda: show.frame_scrubber({"<b>": video, "c": video}),
                                  lambda: show.video_html(video)])
def test_pages_are_self_contained(page):
    html = page().data
    assert not re.search(r"https?://|<script|<link|@import|<in>|<b>", html)
    assert all(src.startswith("data:") for src in re.findall(r'src="([^"]*)"', html))
    for tag in re.findall(r"<(?:input|select)[^>]*>", html): assert "aria-label" in tag and "data-lm-suppress-shortcuts" in tag, "JupyterLab takes the arrow keys"

def test_large_video_is_not_embedded():
    noise = np.random.default_rng(0).integers(0, 256, (17, 256, 256, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="use save_video"): show.video_html(noise)

def picture(image): return np.asarray(Image.open(BytesIO(image.value)))

def test_explorer_follows_its_controls():
    box = show.explore_transition(pairs)
    image, frame, kind, which = box.children
    assert "g2g-explore" in box._dom_classes and "g2g-frame" in image._dom_classes
    for name in TRANSITIONS:
        for i in range(2):
            kind.value, which.value = name, i
            for f in (1, 5, 9):
                frame.value = f
                assert (picture(image) == show.enlarge(make_videos(pairs[i], name)[0, f-1])).all() or name == "tiles"

def test_each_step_of_the_first_view_changes_the_picture():
    image, frame, *_ = show.explore_transition(pairs).children
    seen = set()
    for frame.value in range(1, 10): seen.add(image.value)
    assert len(seen) == 9

def test_explorer_takes_own_transitions_and_one_pair():
    image, frame, kind = show.explore_transition(pairs[0], {"cut": TRANSITIONS["discrete"]}, n_frames=2).children
    frame.value = 2
    assert kind.options == ("cut",) and (picture(image) == show.enlarge(pairs.targets[0])).all()

def test_gallery_and_strip_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="target has 1"): show.gallery(pairs.inputs, pairs.inputs, pairs.targets[:1])
    with pytest.raises(ValueError, match="float64"): show.strip(video/255)
