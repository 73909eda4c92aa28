"""fastdistill: parallel decoding for small distilled language models on a CPU, from plain Python.

import fastdistill as fd
model = fd.load("a-model-folder")
print(model.generate("The capital of France is", max_tokens=8).text)
"""

from fastdistill import errors, kernels
from fastdistill.api import Model, Score, load
from fastdistill.decode import Autoregressive, Generation
from fastdistill.kernels import isa, isa_levels, set_isa
from fastdistill.kernels.sample import Sampler
from fastdistill.runtime import forward_many, from_callable
from fastdistill.runtime.read import Read

__version__ = "0.1.0"
__all__ = [
    "Autoregressive",
    "Generation",
    "Model",
    "Read",
    "Sampler",
    "Score",
    "errors",
    "forward_many",
    "from_callable",
    "isa",
    "isa_levels",
    "kernels",
    "load",
    "set_isa",
]
