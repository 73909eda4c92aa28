"""Masked diffusion: answers that are all masks at first, and the rules by which they are filled; `fastdistill.unmask` names the parts."""
