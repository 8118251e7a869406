# cython: language_level=3, boundscheck=False, wraparound=False
"""What a caller of kldiv_fast's Cython face looks like: many small calls without the GIL, and a gradient step."""

import numpy as np

from libc.stdint cimport int64_t

from kldiv_fast.cython_api cimport (
    KL_INVALID, KL_OK, kl_labels_logits_rows_grad_float32, kl_row_float64, kl_rows_float32, kl_rows_grad_float64
)

cdef double EPSILON = 1e-7


def nearest(const double[:, ::1] queries, const double[:, ::1] references):
    """For each query, the index of the reference r that minimises KL(r, query), in nats, and that divergence."""
    if queries.shape[1] != references.shape[1] or queries.shape[1] == 0 or references.shape[0] == 0:
        raise ValueError("queries and references need the same classes, at least one, and a reference")
    indices = np.zeros(queries.shape[0], np.intp)
    divergences = np.full(queries.shape[0], np.inf)
    cdef Py_ssize_t[::1] index = indices
    cdef double[::1] least = divergences
    cdef Py_ssize_t q, r
    cdef double value
    cdef int status = KL_OK
    with nogil:
        for q in range(queries.shape[0]):
            for r in range(references.shape[0]):
                status = kl_row_float64(
                    &references[r, 0], &queries[q, 0], queries.shape[1], EPSILON, 1, &value
                )
                if status != KL_OK:
                    break
                if value < least[q]:
                    index[q], least[q] = r, value
            if status != KL_OK:
                break
    if status != KL_OK:
        raise RuntimeError(f"kl_row_float64 ended with status {status}")
    return indices, divergences


def divergences(const float[:, ::1] y_true, const float[:, ::1] y_pred):
    """Every row's divergence, in nats."""
    if y_true.shape[0] != y_pred.shape[0] or y_true.shape[1] != y_pred.shape[1] or y_true.shape[1] == 0:
        raise ValueError("y_true and y_pred need one shape, with at least one class")
    values = np.empty(y_true.shape[0], np.float32)
    cdef float[::1] out = values
    cdef int status = KL_OK
    if out.shape[0] > 0:
        status = kl_rows_float32(
            &y_true[0, 0], &y_pred[0, 0], y_true.shape[0], y_true.shape[1], EPSILON, 0, &out[0]
        )
    if status != KL_OK:
        raise RuntimeError(f"kl_rows_float32 ended with status {status}")
    return values


def values_and_gradients(const double[:, ::1] y_true, const double[:, ::1] y_pred):
    """Every row's divergence and its gradient with respect to y_pred."""
    if y_true.shape[0] != y_pred.shape[0] or y_true.shape[1] != y_pred.shape[1] or y_true.shape[1] == 0:
        raise ValueError("y_true and y_pred need one shape, with at least one class")
    values, gradients = np.empty(y_true.shape[0]), np.empty((y_true.shape[0], y_true.shape[1]))
    cdef double[::1] out = values
    cdef double[:, ::1] grad = gradients
    cdef int status = KL_OK
    if out.shape[0] > 0:
        status = kl_rows_grad_float64(
            &y_true[0, 0], &y_pred[0, 0], y_true.shape[0], y_true.shape[1], EPSILON, 0,
            NULL, &out[0], NULL, &grad[0, 0],
        )
    if status != KL_OK:
        raise RuntimeError(f"kl_rows_grad_float64 ended with status {status}")
    return values, gradients


def cross_entropies(const int64_t[::1] labels, const float[:, ::1] logits):
    """Every row's cross-entropy with its label, in nats, and its gradient with respect to the logits."""
    if labels.shape[0] != logits.shape[0] or logits.shape[1] == 0:
        raise ValueError("logits needs a row for each label, with at least one class")
    values = np.empty(logits.shape[0], np.float32)
    gradients = np.empty((logits.shape[0], logits.shape[1]), np.float32)
    cdef float[::1] out = values
    cdef float[:, ::1] grad = gradients
    cdef int status = KL_OK
    if out.shape[0] > 0:
        status = kl_labels_logits_rows_grad_float32(
            &labels[0], &logits[0, 0], logits.shape[0], logits.shape[1], 1.0, 0, NULL, &out[0], &grad[0, 0]
        )
    if status == KL_INVALID:
        raise ValueError(f"labels must be in [0, {logits.shape[1]})")
    if status != KL_OK:
        raise RuntimeError(f"kl_labels_logits_rows_grad_float32 ended with status {status}")
    return values, gradients
