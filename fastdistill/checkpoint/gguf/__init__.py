"""GGUF files to checkpoint folders, and back.

- reader: a file: its header, checked, and the bytes of each tensor
- tensors: the bytes as tensors of a checkpoint, and back
- moves: what lies between a tensor there and here: rows in another order, a transpose, an addend
- record: what is said of an architecture
- architectures: the records: whose tensors and metadata are called what
- tokenizer: the metadata as tokenizer.json, and the tokens that end a text
- rotary: metadata and factors as config.json's rotary base and scaling, and back
- config: the metadata as config.json, and back, the tensors' names and shapes checked against it
- convert: all of it, as a folder
- tokenizer_metadata: tokenizer.json as metadata
- writer: a file, from metadata and bytes
- export: a folder, as a file

Each knows only those above it.
"""

from fastdistill.checkpoint.gguf.architectures import ARCHITECTURES
from fastdistill.checkpoint.gguf.convert import convert_gguf
from fastdistill.checkpoint.gguf.export import export_checkpoint
from fastdistill.checkpoint.gguf.moves import rotary_rows
from fastdistill.checkpoint.gguf.reader import GgufFile, open_gguf

__all__ = ["ARCHITECTURES", "GgufFile", "convert_gguf", "export_checkpoint", "open_gguf", "rotary_rows"]
