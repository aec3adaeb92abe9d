"""Learn a visual task from a handful of image pairs with a LoRA on a frozen image-to-video diffusion model."""
__version__ = "0.0.1"

import sys
from importlib import import_module
from types import ModuleType

# The public face: name -> the module that holds it. Nothing is imported until its name is used, so `import gen2gen` stays quick.
_FACE = {name: module for module, names in {
    "pairs": "Pairs load_pairs load_images photos photo PHOTOS",
    "check": "check_pairs contact_sheet",
    "transitions": "TRANSITIONS get_transition make_videos",
    "metrics": "METRICS Metric get_metric bootstrap_ci",
    "show": "strip gallery save_video video_html before_after frame_scrubber explore_transition",
    "vdm": "VDM VDMS load_vdm register_vdm",
    "adapter": "Adapter Predictions load_adapter",
    "finetune": "finetune",
    "evaluate": "score",
    "tasks": "TASKS Task task",
    "player": "Exhibit exhibits viewer",
    "widgets": "finetune_live browse_predictions try_it",
    "sources": "load_source load_hf load_poses load_depth",
}.items() for name in names.split()}
__all__ = list(_FACE)

class _Package(ModuleType):
    def __setattr__(self, name, value):
        # Python binds a submodule to its package on import; where a function of the face has the module's name, the function must win.
        if not (name in _FACE and isinstance(value, ModuleType)): super().__setattr__(name, value)
    def __getattr__(self, name):
        if name not in _FACE: raise AttributeError(f"module 'gen2gen' has no attribute {name!r}")
        value = getattr(import_module(f"gen2gen.{_FACE[name]}"), name)
        setattr(self, name, value)
        return value
    def __dir__(self): return sorted({*super().__dir__(), *_FACE})

sys.modules[__name__].__class__ = _Package
