#include "coding/wavefront_order.h"

#include <algorithm>

#include "check.h"

namespace vqcodec {

TEST(wavefront_order) {
  for (int height : {1, 2, 7}) {
    for (int width : {1, 3, 8}) {
      for (int lag : {1, 2, 3, 4}) {
        const Wavefront wavefront{height, width, lag};
        int positions = 0, widest = 0;
        for (int t = -20; t < wavefront.steps() + 20; ++t) {
          const RowRange rows = wavefront.rows(t);
          for (int row = -3; row < height + 3; ++row) {
            const int column = t - lag * row;
            const bool active = 0 <= row && row < height && 0 <= column && column < width;
            CHECK_EQ(rows.begin <= row && row < rows.end, active);
            positions += active;
          }
          widest = std::max(widest, rows.size());
        }
        CHECK_EQ(positions, height * width);
        CHECK_EQ(widest, wavefront.widest());
      }
    }
  }
}

}  // namespace vqcodec
