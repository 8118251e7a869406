// Calls in the words of the tasks: operations that are others at their parameters' ends, and labels beside rows. Included by
// kldiv.cpp and rounds.cpp.
#pragma once
#include "kldiv.h"
#include "nest.hpp"

namespace kldiv {

// Whether a problem of such options is what the tasks take as it is.
bool is_resolved(const kldiv_options &options);

// The options that an operation's limit comes to.
kldiv_options resolved(kldiv_options options);

// The problem; it stands on axes of its own.
class Resolved {
    Nest axes_;

public:
    kldiv_problem problem;
    explicit Resolved(const kldiv_problem &given);
    Resolved(const Resolved &) = delete;
    Resolved &operator=(const Resolved &) = delete;
};

}  // namespace kldiv
