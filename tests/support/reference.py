"""Shampoo, SOAP, KL-Shampoo's factors and Muon's iteration in float64 numpy.

Written from the papers, not from the code under test.
"""

from __future__ import annotations

import itertools

import numpy as np


def root64(matrix, p, ridge):
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    values = np.maximum(values, 0)
    return (vectors * (values + ridge * values.max()) ** (-1 / p)) @ vectors.T


def pseudo_inverse64(matrix, p, threshold):
    """A^+^(1/p), with eigenvalues of at most threshold * the largest taken for zeros."""
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    kept = values > threshold * values.max()
    return (vectors[:, kept] * values[kept] ** (-1 / p)) @ vectors[:, kept].T


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


def kl_factors64(gradients, b2, every):
    """For each gradient of one block but the first: it, and (basis, eigenvalues) of the rows and of
    the columns before it, in units of the first."""
    first = gradients[0].astype(np.float64)
    m, n = first.shape
    unit = np.sqrt((first**2).mean())
    left = (1 - b2) * (first / unit) @ (first / unit).T / n
    right = (1 - b2) * (first / unit).T @ (first / unit) / m
    q_left, q_right = (np.linalg.eigh(a)[1][:, ::-1] for a in (left, right))
    l_left, l_right = np.full(m, 0.1), np.full(n, 0.1)
    for t, g in enumerate(gradients[1:], 1):
        g = g.astype(np.float64) / unit
        yield g, (q_left, l_left), (q_right, l_right)
        of_left = g @ power64(q_right, l_right, -1) @ g.T / n
        of_right = g.T @ power64(q_left, l_left, -1) @ g / m
        left, right = b2 * left + (1 - b2) * of_left, b2 * right + (1 - b2) * of_right
        l_left = b2 * l_left + (1 - b2) * np.diag(q_left.T @ of_left @ q_left)
        l_right = b2 * l_right + (1 - b2) * np.diag(q_right.T @ of_right @ q_right)
        if t % every == 0:
            q_left, q_right = (
                np.linalg.qr(a @ q)[0] for a, q in ((left, q_left), (right, q_right))
            )


def power64(q, values, power):
    """(Q diag(values) Q^T)^power, with 1 / sqrt(value) of at most max(10, size)."""
    values = np.maximum(values, max(10, len(values)) ** -2.0)
    return (q * values**power) @ q.T


def newton_schulz64(g):
    """Through singular values: the iteration maps each of them by the same polynomial."""
    left, values, right = np.linalg.svd(g, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right
