#include "coding/frequency_table.h"

#include <cstdint>
#include <vector>

#include "check.h"
#include "random_values.h"

namespace vqcodec {

using testing::random_values;
using testing::uniform;

TEST(frequency_table_finds_every_interval) {
  for (int codes : {3, 31, 32, 33, 64, 1000}) {
    for (int most : {0, 3, 65535}) {
      auto weights = random_values<std::uint16_t>(codes, 0, most);
      weights[uniform(0, codes - 1)] = 65535;
      std::vector<std::uint32_t> before;
      std::uint32_t sum = 0;
      for (int k = 0; k < codes; ++k) {
        if (k % kFrequencyBlock == 0) before.push_back(sum);
        sum += weights[k];
      }
      const FrequencyTable table = {weights.data(), before.data(), sum, codes};
      std::uint32_t next = 0;
      for (int k = 0; k < codes; ++k) {
        const CodeInterval interval = table.of(k);
        CHECK_EQ(interval.start, next);
        CHECK(interval.frequency >= 1);
        next = interval.start + interval.frequency;
        for (std::uint32_t quantile : {interval.start, next - 1}) {
          const CodeInterval found = table.find(quantile);
          CHECK_EQ(found.code, k);
          CHECK_EQ(found.start, interval.start);
          CHECK_EQ(found.frequency, interval.frequency);
        }
      }
      CHECK_EQ(next, kFrequencyTotal);
    }
  }
}

}  // namespace vqcodec
