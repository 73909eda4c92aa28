# TEMPORARY STUB until the real kernel lands
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampler:
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    logit_bias: object = None
    seed: int = 0
    repetition_penalty: float = 1.0

    @property
    def is_greedy(self):
        return True


def sample(*a, **k):
    raise NotImplementedError
