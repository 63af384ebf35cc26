// Tiles that are coded sample by sample.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arguments.h"
#include "nn/index_model.h"
#include "residual/index_coder.h"
#include "residual/subscale_coder.h"

namespace py = pybind11;

namespace vqcodec::bindings {
namespace {

using Tiles = std::vector<SampleTile*>;

std::unique_ptr<SampleTile> make_tile(int height, int width, int channels, int depth, int slices,
                                      int bound, const std::string& requested) {
  const Variant variant = variant_of(requested);
  constexpr std::int64_t most = std::int64_t{1} << 30;
  if (height < 1 || width < 1 || std::int64_t{height} * width > most) {
    raise_invalid("a tile must have 1 to 2^30 pixels");
  }
  if (channels < 1 || channels > kSampleChannels) raise_invalid("channels must be 1 to 4");
  if (depth != 8 && depth != 16) raise_invalid("depth must be 8 or 16");
  if (slices != 1 && slices != kSlices) raise_invalid("slices must be 1 or 6");
  if (bound < 0 || bound > 64) raise_invalid("bound must be 0 to 64");
  return std::make_unique<SampleTile>(TileShape{height, width, depth, channels, slices, bound},
                                      variant);
}

void check_end(const Tiles& tiles, int end) {
  for (const SampleTile* tile : tiles) {
    if (end <= tile->known() || end > tile->shape().slices) {
      raise_invalid("slices must follow the known ones, up to " +
                    std::to_string(tile->shape().slices) + ", got " + std::to_string(end));
    }
  }
}

void set_samples(SampleTile& tile, const Array<std::uint16_t>& planes) {
  const TileShape& shape = tile.shape();
  if (planes.ndim() != 3 || planes.shape(0) != shape.channels || planes.shape(1) != shape.height ||
      planes.shape(2) != shape.width) {
    raise_invalid("samples must be channels x height x width");
  }
  const std::ptrdiff_t size = std::ptrdiff_t{1} * shape.height * shape.width;
  const int top = 1 << shape.depth;
  if (std::any_of(planes.data(), planes.data() + size * shape.channels,
                  [top](std::uint16_t x) { return x >= top; })) {
    raise_invalid("samples must be below " + std::to_string(top));
  }
  for (int c = 0; c < shape.channels; ++c) {
    std::copy_n(planes.data() + size * c, size, tile.samples(c));
  }
}

Array<std::uint16_t> samples(SampleTile& tile) {
  const TileShape& shape = tile.shape();
  Array<std::uint16_t> planes({shape.channels, shape.height, shape.width});
  const std::ptrdiff_t size = std::ptrdiff_t{1} * shape.height * shape.width;
  for (int c = 0; c < shape.channels; ++c) {
    std::copy_n(tile.samples(c), size, planes.mutable_data() + size * c);
  }
  return planes;
}

py::list encode_samples(const Tiles& tiles, int end) {
  check_end(tiles, end);
  std::vector<TileJob> jobs(tiles.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) jobs[i].tile = tiles[i];
  run_without_gil([&](const auto& interrupted) {
    return code_samples(SampleJob::encode, end, &jobs, interrupted);
  });
  py::list made;
  for (const TileJob& job : jobs) {
    py::list channels;
    for (const SampleTile::Streams& streams : job.written) {
      py::list slices;
      for (const auto& stream : streams) {
        slices.append(py::bytes(reinterpret_cast<const char*>(stream.data()), stream.size()));
      }
      channels.append(slices);
    }
    made.append(channels);
  }
  return made;
}

// streams[tile][channel][slice]; whether the streams of every tile may be an encoder's.
std::vector<bool> decode_samples(const Tiles& tiles, int end,
                                 const std::vector<std::vector<std::vector<py::bytes>>>& streams) {
  check_end(tiles, end);
  if (streams.size() != tiles.size()) raise_invalid("expected streams for every tile");
  std::vector<TileJob> jobs(tiles.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const auto channels = static_cast<std::size_t>(tiles[i]->shape().channels);
    if (streams[i].size() != channels) raise_invalid("expected streams for every channel");
    jobs[i].tile = tiles[i];
    for (const auto& channel : streams[i]) {
      if (channel.size() != static_cast<std::size_t>(end - tiles[i]->known())) {
        raise_invalid("expected a stream for every slice");
      }
      jobs[i].read.emplace_back();
      for (const py::bytes& stream : channel) {
        jobs[i].read.back().push_back(
            {reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(stream.ptr())),
             static_cast<std::size_t>(PyBytes_GET_SIZE(stream.ptr()))});
      }
    }
  }
  run_without_gil([&](const auto& interrupted) {
    return code_samples(SampleJob::decode, end, &jobs, interrupted);
  });
  std::vector<bool> sound;
  for (const TileJob& job : jobs) sound.push_back(!job.corrupt);
  return sound;
}

void draw_samples(const Tiles& tiles, int end,
                  const std::vector<std::optional<std::uint64_t>>& seeds) {
  check_end(tiles, end);
  if (seeds.size() != tiles.size()) raise_invalid("expected a seed for every tile");
  std::vector<TileJob> jobs(tiles.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    jobs[i].tile = tiles[i];
    jobs[i].seed = seeds[i];
  }
  run_without_gil([&](const auto& interrupted) {
    return code_samples(SampleJob::draw, end, &jobs, interrupted);
  });
}

void fill(SampleTile& tile) {
  for (int c = 0; c < tile.shape().channels; ++c) tile.fill(c);
}

using Indices = Array<std::uint16_t>;

void check_bits(int bits) {
  if (bits < 0 || bits > kMostIndexBits) raise_invalid("an index must have 0 to 12 bits");
}

// A stream for every tile.
std::vector<py::bytes> encode_indices(const std::vector<py::object>& planes, int bits,
                                      const std::string& requested) {
  check_bits(bits);
  const Variant variant = variant_of(requested);
  std::vector<Indices> copies;  // the coder writes what it reads
  std::vector<IndexTile> tiles;
  for (const py::object& plane : planes) {
    const auto given = as<std::uint16_t>("indices", plane, 2);
    if (std::any_of(given.data(), given.data() + given.size(),
                    [bits](std::uint16_t index) { return index >> bits != 0; })) {
      raise_invalid("indices must have at most " + std::to_string(bits) + " bits");
    }
    copies.emplace_back(std::vector<py::ssize_t>{given.shape(0), given.shape(1)});
    std::copy_n(given.data(), given.size(), copies.back().mutable_data());
    IndexTile tile;
    tile.height = static_cast<int>(given.shape(0));
    tile.width = static_cast<int>(given.shape(1));
    tile.bits = bits;
    tile.indices = copies.back().mutable_data();
    tiles.push_back(std::move(tile));
  }
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::encode_indices(&tiles, variant, interrupted);
  });
  std::vector<py::bytes> streams;
  for (const IndexTile& tile : tiles) {
    streams.emplace_back(reinterpret_cast<const char*>(tile.stream.data()), tile.stream.size());
  }
  return streams;
}

// The indices of every tile, or None where no encoder can have written the stream.
std::vector<py::object> decode_indices(const std::vector<std::pair<int, int>>& sizes, int bits,
                                       const std::vector<py::bytes>& streams,
                                       const std::string& requested) {
  check_bits(bits);
  const Variant variant = variant_of(requested);
  if (streams.size() != sizes.size()) raise_invalid("expected a stream for every tile");
  std::vector<Indices> planes;
  std::vector<IndexTile> tiles;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto [height, width] = sizes[i];
    if (height < 1 || width < 1 || std::int64_t{height} * width > std::int64_t{1} << 30) {
      raise_invalid("a tile must have 1 to 2^30 pixels");
    }
    planes.emplace_back(std::vector<py::ssize_t>{height, width});
    IndexTile tile;
    tile.height = height;
    tile.width = width;
    tile.bits = bits;
    tile.indices = planes.back().mutable_data();
    tile.data = reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(streams[i].ptr()));
    tile.size = static_cast<std::size_t>(PyBytes_GET_SIZE(streams[i].ptr()));
    tiles.push_back(std::move(tile));
  }
  run_without_gil([&](const auto& interrupted) {
    return vqcodec::decode_indices(&tiles, variant, interrupted);
  });
  std::vector<py::object> found;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    found.push_back(tiles[i].corrupt ? py::object(py::none()) : py::object(planes[i]));
  }
  return found;
}

}  // namespace

void bind_samples(py::module_& module) {
  py::class_<SampleTile>(module, "SampleTile",
                         "A tile of an image, known as far as it has been coded.")
      .def(py::init(&make_tile), py::arg("height"), py::arg("width"), py::arg("channels"),
           py::arg("depth"), py::arg("slices"), py::arg("bound"), py::arg("variant") = "")
      .def("set_samples", &set_samples, py::arg("samples").noconvert())
      .def("samples", &samples)
      .def("fill", &fill)
      .def_property_readonly("known", &SampleTile::known);
  module.def("encode_samples", &encode_samples, py::arg("tiles"), py::arg("end"));
  module.def("decode_samples", &decode_samples, py::arg("tiles"), py::arg("end"),
             py::arg("streams"));
  module.def("encode_indices", &encode_indices, py::arg("planes"), py::arg("bits"),
             py::arg("variant") = "");
  module.def("decode_indices", &decode_indices, py::arg("sizes"), py::arg("bits"),
             py::arg("streams"), py::arg("variant") = "");
  module.def("draw_samples", &draw_samples, py::arg("tiles"), py::arg("end"), py::arg("seeds"));
}

}  // namespace vqcodec::bindings
