"""Facts about the machine of a measurement: its processors, and the versions of the libraries that do the work."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

LIBRARIES = ("torch", "transformers", "pytorch-crf", "datasets", "tokenizers")
"""The libraries whose versions are recorded."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries in `LIBRARIES`."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def hardware(device: torch.device | str = "cpu") -> str:
    """Return a description of a device: `AMD EPYC, 2 cores, 2 threads`, or the name of an accelerator."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{_cpu_model()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _cpu_model() -> str:
    """Return the name of the processor, on Linux from `/proc/cpuinfo`, elsewhere from Python."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)", path.read_text(), re.MULTILINE) if path.is_file() else None
    return found[1].strip() if found else platform.processor()
