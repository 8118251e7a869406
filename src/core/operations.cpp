// See operations.hpp.
#include "operations.hpp"

#include <iterator>

namespace kldiv {
namespace {

struct Row {
    const char *name;
    const char *parameters;
};

constexpr Row kRows[] = {
#define KLDIV_ROW(NAME, name, parameters) {#name, parameters},
    KLDIV_OPERATIONS(KLDIV_ROW)
#undef KLDIV_ROW
};

// In the order of kldiv_form.
constexpr const char *kForms[KLDIV_FORM_COUNT] = {"probs", "logits"};

const Row *row(int i) { return i >= 0 && i < static_cast<int>(std::size(kRows)) ? &kRows[i] : nullptr; }

}  // namespace

// The mixture is one of the two there, and what is left of jsd is 0: by convention (TRL, Liger) it is the limit of
// jsd / (beta (1 - beta)) instead.
Limit limit_of(const kldiv_options &options) {
    // The generalized terms beyond kl's add up to 0 where both rows are made to sum to 1.
    const bool normalised = options.y_true_form == KLDIV_LOGITS && options.y_pred_form == KLDIV_LOGITS;
    if (options.operation == KLDIV_GENERALIZED_KL && normalised) return {KLDIV_KL, false};
    if (options.operation != KLDIV_JSD || (options.beta > 0 && options.beta < 1)) return {options.operation, false};
    return {KLDIV_KL, options.beta >= 1};
}

int rowwise_of(kldiv_operation operation, kldiv_form y_true, kldiv_form y_pred) {
    struct Key {
        kldiv_operation operation;
        kldiv_form y_true, y_pred;
    };
    constexpr Key keys[] = {
#define KLDIV_ROW(name, NAME, Y_TRUE, Y_PRED) {KLDIV_##NAME, KLDIV_##Y_TRUE, KLDIV_##Y_PRED},
        KLDIV_ROWWISE(KLDIV_ROW)
#undef KLDIV_ROW
    };
    for (int i = 0; i < kRowwiseCount; ++i)
        if (keys[i].operation == operation && keys[i].y_true == y_true && keys[i].y_pred == y_pred) return i;
    return -1;
}

}  // namespace kldiv

const char *kldiv_operation_name(int i) {
    const kldiv::Row *row = kldiv::row(i);
    return row != nullptr ? row->name : nullptr;
}

const char *kldiv_operation_parameters(int i) {
    const kldiv::Row *row = kldiv::row(i);
    return row != nullptr ? row->parameters : nullptr;
}

const char *kldiv_form_name(int i) { return i >= 0 && i < KLDIV_FORM_COUNT ? kldiv::kForms[i] : nullptr; }

int kldiv_takes(kldiv_operation operation, kldiv_form y_true, kldiv_form y_pred) {
    kldiv_options options = KLDIV_DEFAULTS;
    options.operation = operation, options.y_true_form = y_true, options.y_pred_form = y_pred;
    return !kldiv::is_rowwise(options) || kldiv::rowwise_of(kldiv::limit_of(options).operation, y_true, y_pred) >= 0;
}
