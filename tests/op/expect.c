#include "tests/op/expect.h"

struct expect_state expect_state;
