"""Shampoo and SOAP in float64 numpy, block by block.

Written from the papers, not from the code under test.
"""

from __future__ import annotations

import itertools

import numpy as np


def root64(matrix, p, ridge):
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    values = np.maximum(values, 0)
    return (vectors * (values + ridge * values.max()) ** (-1 / p)) @ vectors.T


def cuts(length, block_size):
    """Slices of the full blocks, then of the remainder."""
    return [slice(start, min(start + block_size, length)) for start in range(0, length, block_size)]


def along(tensor, matrix, axis):
    return np.moveaxis(np.tensordot(matrix, tensor, axes=(1, axis)), 0, axis)


def gram(tensor, axis):
    flat = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    return flat @ flat.T


def shampoo64(gradients, b1, b2, epsilon, block_size, update_every, form=None, order=None):
    """The update direction of one tensor after the last of `gradients`.

    form: shape in which the tensor is preconditioned; a matrix by default.
    """
    shape = gradients[0].shape
    form = form or (int(np.prod(shape[:-1])), shape[-1])
    blocks = list(itertools.product(*(cuts(n, block_size) for n in form)))
    momentum, stats, roots = np.zeros(form), {}, {}
    for t, g in enumerate(gradients):
        g = g.reshape(form).astype(np.float64)
        momentum = b1 * momentum + (1 - b1) * g
        out = np.zeros(form)
        for at in blocks:
            block = momentum[at] / (1 - b1 ** (t + 1))
            for axis in range(len(form)):
                key = (str(at), axis)
                stats[key] = (
                    stats.get(key, 0) + gram(g[at], axis)
                    if b2 == 1
                    else b2 * stats.get(key, 0) + (1 - b2) * gram(g[at], axis)
                )
                if t % update_every == 0:
                    mean = stats[key] if b2 == 1 else stats[key] / (1 - b2 ** (t + 1))
                    roots[key] = root64(mean, order or 2 * len(form), epsilon)
                block = along(block, roots[key], axis)
            out[at] = block
    return out.reshape(shape)


def soap64(gradients, b1, b2, epsilon, block_size, update_every):
    """The update direction of one matrix or kernel after the last of `gradients`."""
    shape = gradients[0].shape
    form = (int(np.prod(shape[:-1])), shape[-1])
    blocks = list(itertools.product(*(cuts(n, block_size) for n in form)))
    momentum, stats, basis, square = np.zeros(form), {}, {}, {}
    for t, g in enumerate(gradients):
        g = g.reshape(form).astype(np.float64)
        momentum = b1 * momentum + (1 - b1) * g
        out = np.zeros(form)
        for at in blocks:
            m, rotated = momentum[at] / (1 - b1 ** (t + 1)), g[at]
            for axis in (0, 1):
                key = (str(at), axis)
                stats[key] = b2 * stats.get(key, 0) + (1 - b2) * gram(g[at], axis)
                if t % update_every == 0:
                    basis[key] = np.linalg.eigh(stats[key])[1]
                m, rotated = along(m, basis[key].T, axis), along(rotated, basis[key].T, axis)
            square[str(at)] = b2 * square.get(str(at), 0) + (1 - b2) * rotated**2
            root = np.sqrt(square[str(at)] / (1 - b2 ** (t + 1)))
            step = m / (root + epsilon * root.max())
            for axis in (0, 1):
                step = along(step, basis[str(at), axis], axis)
            out[at] = step
    return out.reshape(shape)
