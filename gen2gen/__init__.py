"""Learn a visual task from a handful of image pairs with a LoRA on a frozen image-to-video diffusion model."""
__version__ = "0.1.0"

from importlib import import_module

# The public face: module -> its names here. Nothing is imported until a name is used, so `import gen2gen` stays quick.
_FACE = {name: module for module, names in {
    "pairs": "Pairs load_pairs load_images photos photo PHOTOS",
    "check": "check_pairs contact_sheet",
    "transitions": "TRANSITIONS get_transition make_videos",
    "metrics": "METRICS Metric get_metric bootstrap_ci",
    "show": "strip gallery save_video video_html before_after frame_scrubber explore_transition",
    "vdm": "VDM",
    "registry": "VDMS load_vdm register_vdm",
    "adapter": "Adapter Predictions load_adapter",
    "train": "finetune",
    "evaluate": "score",
    "tasks": "TASKS Task task",
    "player": "Exhibit exhibits viewer",
    "widgets": "finetune_live browse_predictions try_it",
    "sources": "load_source load_hf load_poses load_depth",
}.items() for name in names.split()}
__all__ = list(_FACE)

def __getattr__(name):
    if name not in _FACE: raise AttributeError(f"module 'gen2gen' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"gen2gen.{_FACE[name]}"), name)
    return value

def __dir__(): return sorted({*globals(), *_FACE})
