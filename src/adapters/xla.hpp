// The handlers that XLA calls for kldiv_fast.jax. Included by the bindings, which hand them to Python as capsules.
#pragma once

namespace xla_abi {
struct CallFrame;
struct Error;
}  // namespace xla_abi

// Attributes of both, those of kldiv_options: `operation`, a name of the table's; `epsilon` (negative: no clip), `beta` and
// `scale`, float64. y_true and y_pred have one shape (..., classes) and dtype; rows, upstream and gradients are float64 for
// float64, else float32.

// (y_true, y_pred) -> rows (...)
xla_abi::Error *xla_rows(xla_abi::CallFrame *frame);

// (y_true, y_pred, upstream (...)) -> a gradient (..., classes) or both, as the name says
xla_abi::Error *xla_grad_y_true(xla_abi::CallFrame *frame);
xla_abi::Error *xla_grad_y_pred(xla_abi::CallFrame *frame);
xla_abi::Error *xla_grad_both(xla_abi::CallFrame *frame);
