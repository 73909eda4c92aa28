"""Whatever modes of floats somebody else has set in this thread, every entry of C gives the bits of the default ones."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import sys

import numpy as np
import pytest

from fastdistill import kernels as k
from fastdistill.kernels import boundary
from fastdistill.runtime import Read
from fastdistill.transport import sinkhorn
from tests.small_models import network

# Where fenv_t has the word that decides, and its bits: rounding up, down and to zero, denormals flushed (and taken as zeros, on x86).
MODES = {
    "x86_64": (7, {"up": 0x4000, "down": 0x2000, "to zero": 0x6000, "flush": 0x8040}),
    "aarch64": (0, {"up": 1 << 22, "down": 2 << 22, "to zero": 3 << 22, "flush": 1 << 24}),
}.get(platform.machine())
NAME = ctypes.util.find_library("m")

# Entries that compute no floats.
WITHOUT_FLOATS = {
    "fd_allocations", "fd_attention_floats", "fd_attention_tiles", "fd_isa_count", "fd_isa_name", "fd_isa_select", "fd_isa_selected",
    "fd_isa_shares_code", "fd_isa_supported", "fd_kernel_name", "fd_ngram_pool_clear", "fd_packed_bytes", "fd_return_memory",
    "fd_statistics_floats", "fd_threads_limit",
}  # fmt: skip


def everything():
    """Results of every kernel over small inputs, denormals among them."""
    random = np.random.default_rng(3)
    x = random.standard_normal((3, 320)).astype(np.float32)
    x[:, ::7] *= np.float32(1e-40)
    wide = x.astype(np.float64)
    wide[:, ::5] *= 1e-310
    codes, scale = np.full((40, 320), 7, np.int8), np.full((40, 10), 0.01, np.float16)
    p = k.softmax(x)
    tree = {"parents": np.array([-1, 0, 0], np.int32), "tokens": np.array([0, 1, 2], np.int32), "target": p}
    drafts = {"drafts": p[:1], "draft_rows": np.zeros(3, np.int32), "uniforms": np.array([0.3, 0.9, 0.9])}
    at, one = np.arange(3, dtype=np.int32), np.zeros((2, 4), np.int32)
    yield from k.exp_log(np.abs(x[0]))
    yield from k.exp_log(np.abs(wide[0]) + 1e-300)
    yield from k.quantize_rows(x)
    yield from k.row_statistics(x)
    yield from k.expand_tree(x, x[:, 0].copy(), 9)
    yield from (k.probabilities(x, k.Sampler(0.75)), k.sample(x, k.Sampler(0.75, top_p=0.9), at))
    yield k.unmask_select(k.row_statistics(x.reshape(48, 20)), np.ones(48, bool), k.UnmaskRule("margin")).confidence
    yield from (k.linear(x, "q8", codes, scale), k.linear(x, "f32", x), k.gumbel_noise(at, 500))
    for rows in (x, wide):
        yield from (k.softmax(rows), k.softmax(rows, 0.3), k.softmax_gradient(k.softmax(rows), rows.copy(), 0.7))
        for metric in ("sqeuclidean", "euclidean", "l1", "cosine"):
            few = np.ascontiguousarray(rows[:, :5])
            for points in (rows, few):
                yield k.pairwise_distance(points, points + 1, metric)
                yield k.distance_gradient(np.ones((3, 3), rows.dtype), points, points + 1, metric)
        yield from k.unrolled_sinkhorn(np.abs(rows[:, :3].copy()), 0.3, 4)
        found = sinkhorn(None, None, x=few, y=few + 1, epsilon=0.3, max_iterations=20)
        yield from (*found.potentials, found.plan)
        for kind in ("forward_kl", "jsd", "alpha", "log_acceptance"):
            yield from k.row_divergence(rows, rows[::-1].copy(), kind, temperature=0.7, labels=at, label_scale=0.3)
            yield from k.row_divergence_topk(rows, at[:, None].copy(), np.full((3, 1), -0.7), kind, temperature=0.7)
    yield from k.head_divergence(x, x[:, ::-1].copy(), "jsd", teacher=x[:, :3].copy(), temperature=0.7)
    yield from k.top_k(x, 9)
    yield k.sum_of_squares(x[0])
    moments = [x[1].copy(), x[2].copy(), np.abs(x[0])]
    yield k.adamw_step(x[0].copy(), *moments, step=2, learning_rate=0.3, weight_decay=0.1)
    yield from (*moments, k.sgd_step(x[0].copy(), *moments[:2], learning_rate=0.3, momentum=0.7, weight_decay=0.1))
    yield from k.residual_distribution(p[0], p[1], 0.7)
    for rule in ("rejection", "traversal"):
        yield from k.verify_tree(**tree, **drafts, rule=rule)
    yield from k.verify_tree(**tree, uniforms=drafts["uniforms"], rule="typical")
    yield from k.tree_layout(tree["parents"])
    yield from k.build_tree(tree["parents"], x[0, :3].copy(), 2)
    yield k.philox(np.zeros((2, 4), np.uint32), np.zeros(2, np.uint32))
    yield from k.find_matches(np.array([1, 2, 3, 1, 2], np.int32), 3)
    pool = k.NgramPool(3)
    pool.insert(np.arange(9, dtype=np.int32))
    yield from (len(pool), pool.lookup(np.array([1], np.int32)))
    yield k.fixed_point_prefix(one, one)
    yield from k.jacobi_step(one, one)
    yield from k.lookahead_layout(3, 3, 1)[:3]
    yield k.draft_and_verify(one[:1], one[:1] + 1, x[:1, :4].copy(), np.array([[0, 4, 1]], np.int32), 0, 1).drafts
    session = network("plain", "q8").session()
    yield session.forward([5, 7, 9], read=Read(logits=True)).logits


class InMode:
    """The library, each call of which runs in such a mode; the mode is still there afterwards."""

    def __init__(self, libm, mode):
        self.libm, self.mode, self.called = libm, mode, set()

    def __getattr__(self, name):
        entry = getattr(boundary.lib, name)
        if not callable(entry):
            return entry
        self.called.add(name)

        def call(*arguments):
            before, within, after = (ctypes.c_uint32 * 16)(), (ctypes.c_uint32 * 16)(), (ctypes.c_uint32 * 16)()
            word = MODES[0]
            self.libm.fegetenv(before)
            ctypes.memmove(within, before, 64)
            within[word] |= self.mode
            self.libm.fesetenv(within)
            try:
                return entry(*arguments)
            finally:
                self.libm.fegetenv(after)
                self.libm.fesetenv(before)
                assert after[word] & self.mode == self.mode

        return call


def bits_of(results):
    return [np.asarray(result).tobytes() for result in results]


@pytest.mark.skipif(MODES is None or NAME is None, reason="no fenv_t known on this machine")
@pytest.mark.parametrize("mode", ["up", "down", "to zero", "flush"])
def test_the_callers_modes_change_no_bit(isa, monkeypatch, mode):
    want = bits_of(everything())
    lib = InMode(ctypes.CDLL(NAME), MODES[1][mode])
    for module in [module for name, module in sys.modules.items() if name.startswith("fastdistill.")]:
        if getattr(module, "lib", None) is boundary.lib and module is not boundary:
            monkeypatch.setattr(module, "lib", lib)
    assert bits_of(everything()) == want
    entries = {name for name in dir(boundary.lib) if name.startswith("fd_")}
    assert entries - lib.called <= WITHOUT_FLOATS
