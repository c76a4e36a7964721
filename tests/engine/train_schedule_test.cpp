#include <vector>

#include "engine/train/schedule.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::engine;

namespace {

void require_rates(const Schedule& schedule, const std::vector<double>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO("step " << i + 1);
    REQUIRE(schedule.rate(static_cast<std::int64_t>(i) + 1) == Approx(expected[i]).epsilon(1e-12));
  }
}

}  // namespace

// The expected values were recorded from transformers 5.23.0 with torch 2.13.0.
TEST_CASE("cosine with warm-up gives transformers' rates") {
  require_rates({ScheduleKind::cosine, 2e-4, 3, 10},
                {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0001900968867902419,
                 0.00016234898018587337, 0.00012225209339563145, 7.774790660436858e-05,
                 3.7651019814126654e-05, 9.903113209758096e-06});
  require_rates({ScheduleKind::cosine, 1.0, 0, 5}, {1.0, 0.9045084971874737, 0.6545084971874737,
                                                    0.34549150281252633, 0.09549150281252633});
}

TEST_CASE("linear with warm-up gives transformers' rates") {
  require_rates({ScheduleKind::linear, 2e-4, 3, 10},
                {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.00017142857142857143,
                 0.00014285714285714287, 0.00011428571428571428, 8.571428571428571e-05,
                 5.714285714285714e-05, 2.857142857142857e-05});
}

TEST_CASE("constant with warm-up gives transformers' rates") {
  require_rates({ScheduleKind::constant, 2e-4, 3, 6},
                {0.0, 6.666666666666667e-05, 0.00013333333333333334, 0.0002, 0.0002, 0.0002});
}

TEST_CASE("warm-up below 1 is a share rounded up, from 1 on a number of steps") {
  REQUIRE(warmup_steps(0, 100) == 0);
  REQUIRE(warmup_steps(0.03, 100) == 3);
  REQUIRE(warmup_steps(0.03, 101) == 4);
  REQUIRE(warmup_steps(0.5, 1) == 1);
  REQUIRE(warmup_steps(1, 100) == 1);
  REQUIRE(warmup_steps(25, 100) == 25);
}

TEST_CASE("a warm-up that is neither share nor whole number is refused") {
  for (const double wrong : {-0.1, 1.5, 1e300})
    testing::require_error(ErrorKind::usage, "warm-up", [&] { warmup_steps(wrong, 10); });
}

TEST_CASE("an unknown schedule is refused with the names there are") {
  testing::require_error(ErrorKind::usage, "cosine, linear or constant",
                         [] { schedule_from_string("step"); });
}
