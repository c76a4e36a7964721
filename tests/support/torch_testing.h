// For tests that touch LibTorch: its CHECK macro would silently replace Catch2's, so torch comes
// first and its macro goes.
#pragma once

#include <ATen/ATen.h>
#undef CHECK

#include "support/testing.h"
