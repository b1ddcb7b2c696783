// YAML text -> a tree that remembers where everything stands. One document of plain maps, lists and scalars: tags,
// merge keys, complex keys and further documents are refused by name. Safe on hostile input: size, depth, node count
// and alias expansion are bounded before anything is built.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace gemma_sft {

// From 1; columns count bytes. {0, 0}: nowhere.
struct Place {
  int line = 0;
  int column = 0;
};

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNothing, kScalar, kList, kMap };
  Kind kind = Kind::kNothing;
  Place place;
  bool quoted = false;             // scalar in quotes, or a block of text
  bool says_null = false;          // kNothing written out, as `null` or `~`
  std::string text;                // of a scalar
  std::vector<YamlNode> items;     // of a list
  std::vector<YamlEntry> entries;  // of a map, in file order; duplicates are kept
};

struct YamlEntry {
  std::string key;
  Place place;
  YamlNode value;
};

// What makes a text unusable as a whole; the message is without the file's name and place.
class YamlProblem : public std::runtime_error {
 public:
  YamlProblem(Place where, const std::string& message) : std::runtime_error(message), place(where) {}
  Place place;
};

struct YamlLimits {
  static constexpr size_t kBytes = 1 << 18;  // the parser takes up to 120 bytes of memory for each
  static constexpr int kDepth = 64;
  static constexpr int kNodes = 10000;  // after aliases are replaced by what they stand for
  static constexpr int kAliases = 100;
};

// Throws YamlProblem. An empty text (or one with comments only) gives kNothing.
YamlNode parse_yaml(std::string_view text);

}  // namespace gemma_sft
