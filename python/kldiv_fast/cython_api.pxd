# Kullback-Leibler divergence for Cython code, without Python objects and without the GIL:
#
#     from kldiv_fast.cython_api cimport kl_row_float32, KL_OK
#
#     t = clip(y_true, epsilon, 1)      p = clip(y_pred, epsilon, 1)
#     row = sum over the classes of  t * log(t / p)          [nats]
#
# kl_logits_*: both inputs are logits; t and p are softmax(x / temperature), without a clip. kl_labels_*: y_true is a class
# for each row, t is 1 there and 0 elsewhere, beside probabilities or (kl_labels_logits_*) logits.
#
# Arrays are C-contiguous: rows x classes. A call borrows its pointers for as long as it lasts; it keeps nothing and frees
# nothing. What it writes may not overlap what it reads, nor another thing that it writes; y_true and y_pred may be one
# array. Calls from several threads at once are safe. Values have the same bits as kldiv_fast.kl's on the same arrays, with
# form="logits", ("labels", "probs") or ("labels", "logits").
#
# epsilon: in [0, 1). temperature: above 0, and finite. Labels: in [0, classes). num_threads: 0 for the setting of
# kldiv_fast.set_num_threads. Within an OpenMP region (prange) a call always runs on the one thread that makes it. The ISA is
# that of kldiv_fast.current_isa().
#
# Every function returns KL_OK or why it did not do its work; what it should have written is then undefined.

from libc.stdint cimport int64_t


cdef enum:
    KL_OK = 0
    KL_NO_MEMORY = 2
    KL_INVALID = 3  # a negative size, more elements than memory can hold; an epsilon, temperature or label out of range


# One row: *value becomes its divergence.
cdef int kl_row_float32(
    const float *y_true, const float *y_pred, Py_ssize_t classes, double epsilon, int num_threads, float *value,
) noexcept nogil
cdef int kl_row_float64(
    const double *y_true, const double *y_pred, Py_ssize_t classes, double epsilon, int num_threads, double *value,
) noexcept nogil

# Many rows: out[i] becomes the divergence of row i.
cdef int kl_rows_float32(
    const float *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    float *out,
) noexcept nogil
cdef int kl_rows_float64(
    const double *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    double *out,
) noexcept nogil

# Many rows and their gradients, from one pass over the inputs:
#
#     grad_y_true = upstream * (log(t / p) + 1)      grad_y_pred = upstream * (-t / p)
#
# and 0 where the clip is at work. upstream: a factor for each row, NULL for 1. out (rows), grad_y_true and grad_y_pred
# (rows x classes): each NULL where it is not wanted.
cdef int kl_rows_grad_float32(
    const float *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    const float *upstream, float *out, float *grad_y_true, float *grad_y_pred,
) noexcept nogil
cdef int kl_rows_grad_float64(
    const double *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    const double *upstream, double *out, double *grad_y_true, double *grad_y_pred,
) noexcept nogil


# ---- Logits: both what a softmax takes ----

cdef int kl_logits_row_float32(
    const float *y_true, const float *y_pred, Py_ssize_t classes, double temperature, int num_threads, float *value,
) noexcept nogil
cdef int kl_logits_row_float64(
    const double *y_true, const double *y_pred, Py_ssize_t classes, double temperature, int num_threads,
    double *value,
) noexcept nogil

cdef int kl_logits_rows_float32(
    const float *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, float *out,
) noexcept nogil
cdef int kl_logits_rows_float64(
    const double *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, double *out,
) noexcept nogil

# grad_y_true and grad_y_pred: with respect to the logits,
#
#     upstream * t * (log(t / p) - row) / temperature      upstream * (p - t) / temperature
cdef int kl_logits_rows_grad_float32(
    const float *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, const float *upstream, float *out, float *grad_y_true, float *grad_y_pred,
) noexcept nogil
cdef int kl_logits_rows_grad_float64(
    const double *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, const double *upstream, double *out, double *grad_y_true, double *grad_y_pred,
) noexcept nogil


# ---- Labels: for each row the class whose probability is 1 ----

# Beside probabilities: what kl is of one-hot rows, clipped too.
cdef int kl_labels_row_float32(
    Py_ssize_t label, const float *y_pred, Py_ssize_t classes, double epsilon, int num_threads, float *value,
) noexcept nogil
cdef int kl_labels_row_float64(
    Py_ssize_t label, const double *y_pred, Py_ssize_t classes, double epsilon, int num_threads, double *value,
) noexcept nogil
cdef int kl_labels_rows_float32(
    const int64_t *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    float *out,
) noexcept nogil
cdef int kl_labels_rows_float64(
    const int64_t *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    double *out,
) noexcept nogil
cdef int kl_labels_rows_grad_float32(
    const int64_t *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    const float *upstream, float *out, float *grad_y_pred,
) noexcept nogil
cdef int kl_labels_rows_grad_float64(
    const int64_t *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
    const double *upstream, double *out, double *grad_y_pred,
) noexcept nogil

# Beside logits: the cross-entropy, -log(p) of the label, whose gradient is upstream * (p - t) / temperature.
cdef int kl_labels_logits_row_float32(
    Py_ssize_t label, const float *y_pred, Py_ssize_t classes, double temperature, int num_threads, float *value,
) noexcept nogil
cdef int kl_labels_logits_row_float64(
    Py_ssize_t label, const double *y_pred, Py_ssize_t classes, double temperature, int num_threads, double *value,
) noexcept nogil
cdef int kl_labels_logits_rows_float32(
    const int64_t *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, float *out,
) noexcept nogil
cdef int kl_labels_logits_rows_float64(
    const int64_t *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, double *out,
) noexcept nogil
cdef int kl_labels_logits_rows_grad_float32(
    const int64_t *y_true, const float *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, const float *upstream, float *out, float *grad_y_pred,
) noexcept nogil
cdef int kl_labels_logits_rows_grad_float64(
    const int64_t *y_true, const double *y_pred, Py_ssize_t rows, Py_ssize_t classes, double temperature,
    int num_threads, const double *upstream, double *out, double *grad_y_pred,
) noexcept nogil
