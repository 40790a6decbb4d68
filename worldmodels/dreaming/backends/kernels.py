"""Kernels of a dreamed step between its two matrix products; each passes over memory once.

For `worldmodels.dreaming.backends.fused`, on NumPy arrays of one row per lane; lane p * R + r is
rollout r of candidate p. Arrays that enter or leave a matrix product are float32, or bfloat16 seen
as uint16, which NumPy does not know otherwise; `_load` and `_store` translate. All arithmetic is in
float32.

Written so that LLVM makes vector instructions of every inner loop: rows are sliced before the
loop (no index can then be negative), division follows NumPy (no branch to raise an error), and
exponentials are a polynomial. No loop swallows NaN.

The kernels are compiled by numba on first use: seconds, once per machine, for the result is
cached beside this file, or in the user's cache folder where this one cannot be written to.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numba.extending import overload

from generative.mdn import LOG_STD_MAX, LOG_STD_MIN

__all__ = ["lstm_cell", "sample_z", "settle", "steer"]

# "contract" allows a * b + c as one instruction, "nsz" ignores the sign of zero. Not "fast",
# which may assume that NaN never occurs, nor "reassoc", which would cancel the rounding in `_exp`.
_VECTOR = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
_SUM = {**_VECTOR, "fastmath": {"contract", "nsz", "reassoc"}}  # sums in any order

_ONE, _TWO = np.float32(1), np.float32(2)
_LOG2_E = np.float32(1 / math.log(2))
_ROUNDER = np.float32(1.5 * 2**23)
"""Added to a number below 2^22 and taken off again, it leaves the nearest integer."""
_EXP2 = tuple(
    np.float32(c)
    for c in (
        1.535336188319500e-4,
        1.339887440266574e-3,
        9.618437357674640e-3,
        5.550332471162809e-2,
        2.402264791363012e-1,
        6.931472028550421e-1,
    )
)
"""2^x = 1 + x * polynomial for |x| <= 1/2, highest power first (Cephes, exp2f)."""

# Beyond these, sigmoid and tanh are 0 or 1 to within 2e-9, and no product below overflows.
_SIGMOID_BOUND, _TANH_BOUND = np.float32(20), np.float32(10)
_LOG_STD_MIN, _LOG_STD_MAX = np.float32(LOG_STD_MIN), np.float32(LOG_STD_MAX)


# These two bodies serve where compiling is switched off (NUMBA_DISABLE_JIT=1, for debugging);
# compiled code takes what `overload` gives below, which is chosen by type.


def _load(row, j):
    """row[j] as float32."""
    if row.dtype == np.uint16:
        return (row[j : j + 1].astype(np.uint32) << np.uint32(16)).view(np.float32)[0]
    return row[j]


def _store(row, j, x):
    """row[j] = x, a float32, rounded to the nearest number that the row can hold."""
    if row.dtype == np.uint16:
        bits = int(np.float32(x).view(np.uint32))
        x = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    row[j] = x


@overload(_load, inline="always")
def _compile_load(row, j):
    if row.dtype.bitwidth == 16:
        # A bfloat16 is the upper half of a float32.
        return lambda row, j: np.uint32(np.uint32(row[j]) << np.uint32(16)).view(np.float32)
    return lambda row, j: row[j]


@overload(_store, inline="always")
def _compile_store(row, j, x):
    if row.dtype.bitwidth == 16:

        def store(row, j, x):
            bits = np.float32(x).view(np.uint32)
            odd = (bits >> np.uint32(16)) & np.uint32(1)  # ties go to the even neighbour
            row[j] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

        return store

    def store(row, j, x):
        row[j] = x

    return store


@njit(**_VECTOR)
def _exp(x):
    """e^x for |x| <= 87, to a relative 2e-6."""
    y = x * _LOG2_E
    rounded = y + _ROUNDER
    rest = y - (rounded - _ROUNDER)
    c0, c1, c2, c3, c4, c5 = _EXP2
    power = ((((c0 * rest + c1) * rest + c2) * rest + c3) * rest + c4) * rest + c5
    power = power * rest + _ONE
    # The integer stands in the low bits of `rounded`; moved to the exponent's place it is 2^n.
    bits = np.float32(rounded).view(np.int32)
    return power * np.int32((bits + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(**_VECTOR)
def _clamp(x, low, high):
    """x within [low, high]; NaN stays NaN, which min and max would not ensure."""
    x = low if x < low else x
    return high if x > high else x


@njit(**_VECTOR)
def _exp_of_minus(x, bound):
    return _exp(-_clamp(x, -bound, bound))


@njit(**_SUM)
def steer(state, weight, bias, raw, saturation):
    """Raw outputs of all controllers: raw[p, r] = weight[p] @ state[lane] + bias[p].

    Args:
        state: (P * R, at least n), a row begins with what the controllers see.
        weight, bias: (P, A, n) and (P, A).
        raw: (P, R, A), written.
        saturation: (P * R,), grows by the squares by which outputs lie beyond [-1, 1].
    """
    num_candidates, num_actions, num_features = weight.shape
    num_rollouts = raw.shape[1]
    for p in range(num_candidates):
        for r in range(num_rollouts):
            lane = p * num_rollouts + r
            seen = state[lane, :num_features]
            for a in range(num_actions):
                row = weight[p, a]
                total = np.float32(0)
                for j in range(num_features):
                    total += row[j] * seen[j]
                total += bias[p, a]
                raw[p, r, a] = total
                beyond = abs(total) - _ONE
                saturation[lane] += np.float32(0) if beyond < 0 else beyond * beyond


@njit(**_VECTOR)
def lstm_cell(gates, bias, mask, state, inputs, at, features):
    """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').

    Args:
        gates: (P * R, 4 H), the matrix product, in torch's order i, f, g, o.
        bias: (4 H,), still to be added to it.
        mask: (R, H), what h' is multiplied by before the heads see it.
        state: (P * R, D + 2 H) float32, rows z, h, c; h and c change in place.
        inputs: (P * R, n), for the next step's product; h' is written into columns at to at + H.
        features: (P * R, H), written: h' * mask for the heads' product.
    """
    num_rollouts, dim = mask.shape
    first = state.shape[1] - 2 * dim
    bias_i, bias_f = bias[:dim], bias[dim : 2 * dim]
    bias_g, bias_o = bias[2 * dim : 3 * dim], bias[3 * dim :]
    for lane in range(gates.shape[0]):
        gate_i, gate_f = gates[lane, :dim], gates[lane, dim : 2 * dim]
        gate_g, gate_o = gates[lane, 2 * dim : 3 * dim], gates[lane, 3 * dim :]
        h, c = state[lane, first : first + dim], state[lane, first + dim :]
        kept = mask[lane % num_rollouts]
        # sigmoid(x) = 1 / (1 + e^-x) and tanh(x) = (1 - e^-2x) / (1 + e^-2x); a product of the two
        # needs one division.
        for j in range(dim):
            i = _exp_of_minus(_load(gate_i, j) + bias_i[j], _SIGMOID_BOUND)
            f = _exp_of_minus(_load(gate_f, j) + bias_f[j], _SIGMOID_BOUND)
            g = _exp_of_minus(_TWO * (_load(gate_g, j) + bias_g[j]), _TWO * _TANH_BOUND)
            c[j] = c[j] / (_ONE + f) + (_ONE - g) / ((_ONE + i) * (_ONE + g))
            o = _exp_of_minus(_load(gate_o, j) + bias_o[j], _SIGMOID_BOUND)
            t = _exp_of_minus(_TWO * c[j], _TWO * _TANH_BOUND)
            h[j] = (_ONE - t) / ((_ONE + o) * (_ONE + t))
        row = inputs[lane, at : at + dim]
        for j in range(dim):
            _store(row, j, h[j])
        row = features[lane]
        for j in range(dim):
            _store(row, j, h[j] * kept[j])


@njit(**_VECTOR)
def sample_z(out, bias, gumbel, eps, root, residual, state, inputs):
    """A draw of the next z: the mixture of highest log_pi + gumbel, then its Gaussian.

    Args:
        out: (P * R, at least 3 K D), the matrix product: log_pi, mu, log_std, each as (K, D).
        bias: (at least 3 K D,), still to be added to it.
        gumbel: (K, R, D), standard Gumbel times temperature.
        eps: (R, D), standard normal.
        root: square root of the temperature, which widens the Gaussian.
        residual: whether means are changes of z.
        state: (P * R, at least D) float32, rows begin with z, which changes in place.
        inputs: (P * R, n), for the next step's product; z is written into the first columns.
    """
    num_mixtures, num_rollouts, dim = gumbel.shape
    best = np.empty(dim, np.float32)
    mu, log_std = np.empty_like(best), np.empty_like(best)
    for lane in range(out.shape[0]):
        r = lane % num_rollouts
        for k in range(num_mixtures):
            at_pi, at_mu, at_std = k * dim, (num_mixtures + k) * dim, (2 * num_mixtures + k) * dim
            log_pi_k, bias_pi = out[lane, at_pi : at_pi + dim], bias[at_pi : at_pi + dim]
            mu_k, bias_mu = out[lane, at_mu : at_mu + dim], bias[at_mu : at_mu + dim]
            log_std_k, bias_std = out[lane, at_std : at_std + dim], bias[at_std : at_std + dim]
            gumbel_k = gumbel[k, r]
            for d in range(dim):
                score = _load(log_pi_k, d) + bias_pi[d] + gumbel_k[d]
                this_mu = _load(mu_k, d) + bias_mu[d]
                this_log_std = _load(log_std_k, d) + bias_std[d]
                better = k == 0 or score > best[d]
                best[d] = score if better else best[d]
                mu[d] = this_mu if better else mu[d]
                log_std[d] = this_log_std if better else log_std[d]
        z, noise = state[lane, :dim], eps[r]
        for d in range(dim):
            std = root * _exp(_clamp(log_std[d], _LOG_STD_MIN, _LOG_STD_MAX))
            z[d] = mu[d] + std * noise[d] + (z[d] if residual else np.float32(0))
        row = inputs[lane, :dim]
        for d in range(dim):
            _store(row, d, z[d])


@njit(**_SUM)
def _sum(row):
    total = np.float32(0)
    for j in range(len(row)):
        total += row[j]
    return total


@njit(**_VECTOR)
def settle(
    out, at, bias, scale, low, high, uniform, state, dim, alive, stretch, lengths, inputs, reward_at
):
    """Count rewards and ends, as `worldmodels.dreaming.step` does.

    Args:
        out: (P * R, n), the matrix product; column `at` is reward / scale, and the one behind it
            the logit of the end.
        bias: (1,) without an end, (2,) with one; still to be added to these columns.
        low, high: what a reward is clipped to.
        uniform: (R,); a dream ends where it lies below the probability of the end.
        state: (P * R, at least dim), rows begin with z as drawn. Where it, the reward or the end is
            not finite, `alive` becomes NaN.
        alive, stretch, lengths: (P * R,), changed in place.
        inputs: (P * R, m), for the next step's product; reward / scale is written into column
            `reward_at`, unless that is negative.
    """
    for lane in range(out.shape[0]):
        row = out[lane]
        reward = _clamp((_load(row, at) + bias[0]) * scale, low, high)
        stretch[lane] += alive[lane] * reward
        lengths[lane] += np.float32(1) if alive[lane] > 0 else np.float32(0)
        if reward_at >= 0:
            _store(inputs[lane], reward_at, reward / scale)
        if not alive[lane] > 0:
            continue
        total = reward + _sum(state[lane, :dim])
        if len(bias) == 2:
            end = _ONE / (_ONE + _exp_of_minus(_load(row, at + 1) + bias[1], _SIGMOID_BOUND))
            if uniform[lane % len(uniform)] < end:
                alive[lane] = np.float32(0)
            total += end
        if total - total != 0:  # an infinity, or NaN
            alive[lane] = np.float32(np.nan)
