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
constexpr const char *kForms[KLDIV_FORM_COUNT] = {"probs", "counts", "log_probs", "logits", "labels"};

const Row *row(int i) { return i >= 0 && i < static_cast<int>(std::size(kRows)) ? &kRows[i] : nullptr; }

}  // namespace

// The mixture is one of the two there, and what is left of jsd is 0: by convention (TRL, Liger) it is the limit of
// jsd / (beta (1 - beta)) instead.
Limit limit_of(const kldiv_options &options) {
    // The generalized terms beyond kl's add up to 0 where both rows are made to sum to 1.
    if (options.operation == KLDIV_GENERALIZED_KL && makes_distributions(options)) return {KLDIV_KL, false};
    if (options.operation != KLDIV_JSD || (options.beta > 0 && options.beta < 1)) return {options.operation, false};
    return {KLDIV_KL, options.beta >= 1};
}

int rowwise_of(const kldiv_options &options) {
    struct Key {
        int operation, y_true, y_pred;
    };
    constexpr int KLDIV_ANY = -1;
    constexpr Key keys[] = {
#define KLDIV_ROW(name, NAME, Y_TRUE, Y_PRED) {KLDIV_##NAME, KLDIV_##Y_TRUE, KLDIV_##Y_PRED},
        KLDIV_ROWWISE(KLDIV_ROW)
#undef KLDIV_ROW
    };
    const auto fits = [](int key, int given) { return key == KLDIV_ANY || key == given; };
    const auto takes = [&](const Key &key) {
        return fits(key.operation, options.operation) && fits(key.y_true, options.y_true_form) &&
               fits(key.y_pred, options.y_pred_form) && (key.y_true != KLDIV_LABELS || options.smoothing == 0);
    };
    int i = 0;
    while (!takes(keys[i])) ++i;
    return i;
}

kldiv_operation terms_of(const kldiv_options &options) {
    // No term is below 0, and none cancels another where the rows nearly agree.
    const bool is_kl = options.operation == KLDIV_KL && makes_distributions(options);
    return is_kl ? KLDIV_GENERALIZED_KL : options.operation;
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
