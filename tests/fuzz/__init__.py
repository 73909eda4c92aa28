"""Fuzzing: what reads files and arguments of others is given bytes that coverage finds (docs/reliability.md).

- targets/: a file a target in Python; native/: those in C, of kernels that read structure
- law.py: what a target may and may not do
- mutators.py: changes that know JSON, safetensors and GGUF
- python_target.py: one target under atheris; native_targets.py: the C ones, compiled
- corpus/: inputs that are kept, a folder a target; test_corpus.py runs them without a fuzzer
"""
