"""GGUF files to checkpoint folders.

- reader: the file: its header, checked, and the bytes of each tensor
- tensors: the bytes as tensors of a checkpoint, named and ordered as Hugging Face does
- tokenizer: the metadata as tokenizer.json, and the tokens that end a text
- config: the metadata as config.json, the tensors' names and shapes checked against it
- convert: all of it, as a folder

Each knows only those above it.
"""

from fastdistill.checkpoint.gguf.convert import convert_gguf
from fastdistill.checkpoint.gguf.moves import rotary_rows
from fastdistill.checkpoint.gguf.reader import GgufFile

__all__ = ["GgufFile", "convert_gguf", "rotary_rows"]
