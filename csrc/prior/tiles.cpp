#include "prior/tiles.h"

namespace vqcodec {

Status check_tile(const PriorNetwork& network, const PriorTile& tile) {
  const auto expect = [](const std::string& what, std::int64_t found, std::int64_t low,
                         std::int64_t high) {
    if (low <= found && found <= high) return Status();
    return Status::invalid_argument(what + " must be in " + std::to_string(low) + ".." +
                                    std::to_string(high) + ", got " + std::to_string(found));
  };
  constexpr int max_side = 1 << 20;
  Status status = expect("class", tile.class_id, 0, network.num_classes - 1);
  if (status.ok()) status = expect("level", tile.level, 0, network.num_levels - 1);
  if (status.ok()) status = expect("height of a map", tile.own.height, 1, max_side);
  if (status.ok()) status = expect("width of a map", tile.own.width, 1, max_side);
  if (status.ok()) status = expect("codes of a map", tile.own.size(), 1, std::int64_t{1} << 28);
  for (std::size_t j = 0; status.ok() && j < network.coarser.size(); ++j) {
    const CodeMap& map = tile.coarser[j];
    const int factor = network.coarser[j].factor;
    status =
        expect("height of a coarser map", map.height, (tile.own.height - 1) / factor + 1, max_side);
    if (!status.ok()) break;
    status =
        expect("width of a coarser map", map.width, (tile.own.width - 1) / factor + 1, max_side);
  }
  return status;
}

Status check_codes(const CodeMap& map, int codes, const std::string& name) {
  for (std::int64_t i = 0; i < map.size(); ++i) {
    if (map.codes[i] < 0 || map.codes[i] >= codes) {
      return Status::invalid_argument(name + ": codes must be in 0.." + std::to_string(codes - 1) +
                                      ", got " + std::to_string(map.codes[i]));
    }
  }
  return {};
}

Status check_known_tile(const PriorNetwork& network, const PriorTile& tile) {
  if (Status status = check_tile(network, tile); !status.ok()) return status;
  if (Status status = check_codes(tile.own, network.codes, "map"); !status.ok()) return status;
  for (std::size_t j = 0; j < network.coarser.size(); ++j) {
    const std::string name = "coarser map " + std::to_string(j);
    Status status = check_codes(tile.coarser[j], network.coarser[j].codes, name);
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace vqcodec
