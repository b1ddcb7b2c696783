#include "configs/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "configs/scalar.h"
#include "configs/value_reader.h"

namespace gemma_sft {
namespace {

Place place_of(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

// Line ends become \n, a byte order mark goes, and bytes that no text file holds are refused: yaml-cpp takes U+0004 for
// the end of the file and repairs broken UTF-8 in silence.
std::string checked_text(std::string_view text) {
  if (text.size() > YamlLimits::kBytes) {
    throw YamlProblem({1, 1}, "the file is larger than 256 KiB, which no configuration is");
  }
  if (text.substr(0, 2) == "\xff\xfe" || text.substr(0, 2) == "\xfe\xff") {
    throw YamlProblem({1, 1}, "the file is UTF-16; save it as UTF-8");
  }
  if (text.substr(0, 3) == "\xef\xbb\xbf") text.remove_prefix(3);
  std::string result;
  result.reserve(text.size());
  Place place{1, 1};
  bool indenting = true;
  Place tab;  // the first tab of this line's indentation
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text[0]);
    if (byte == '\n' || byte == '\r') {
      const bool both = byte == '\r' && text.size() > 1 && text[1] == '\n';
      text.remove_prefix(both ? 2 : 1);
      result += '\n';
      place = {place.line + 1, 1};
      indenting = true;
      tab = {};
      continue;
    }
    if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
      throw YamlProblem(place,
                        fmt::format("control character U+{:04X}; is this a text file?", static_cast<unsigned>(byte)));
    }
    const size_t length = utf8_length(text);
    if (length == 0) {
      throw YamlProblem(place,
                        fmt::format("byte 0x{:02x} is not UTF-8; save the file as UTF-8", static_cast<unsigned>(byte)));
    }
    if (indenting && byte == '\t') {
      if (tab.line == 0) tab = place;
    } else if (indenting && byte != ' ') {
      indenting = false;
      if (tab.line != 0 && byte != '#') {
        throw YamlProblem(tab, "a tab in the indentation; YAML wants spaces");
      }
    }
    result += text.substr(0, length);
    text.remove_prefix(length);
    place.column += static_cast<int>(length);
  }
  return result;
}

// Builds the tree from the parser's events. Each open container is a frame; a finished node goes to the frame below it.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string_view text) : text_(text) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) {
      throw YamlProblem(place_of(mark), "a second YAML document; a configuration is one document");
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    YamlNode node;
    node.place = place_of(mark);
    const std::string_view here = mark.pos >= 0 && static_cast<size_t>(mark.pos) < text_.size()
                                      ? text_.substr(static_cast<size_t>(mark.pos), 4)
                                      : std::string_view();
    node.says_null = !here.empty() && (here[0] == '~' || here == "null" || here == "Null" || here == "NULL");
    add(std::move(node), anchor, Size{}, 1);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_tag(mark, tag);
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.place = place_of(mark);
    node.quoted = tag == "!";
    if (node.quoted) refuse_open_quotes(mark);
    // The system reads a file's name up to there.
    if (value.find('\0') != std::string::npos) throw YamlProblem(place_of(mark), "a text cannot hold a NUL byte (\\0)");
    node.text = value;
    add(std::move(node), anchor, Size{}, 1);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (++aliases_ > YamlLimits::kAliases) {
      throw YamlProblem(place_of(mark), fmt::format("more than {} aliases", YamlLimits::kAliases));
    }
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      throw YamlProblem(place_of(mark), "this alias stands inside what it stands for");
    }
    const Anchored& target = found->second;
    if (static_cast<int>(frames_.size()) + target.size.depth > YamlLimits::kDepth) too_deep(mark);
    YamlNode node = target.node;
    node.place = place_of(mark);
    add(std::move(node), 0, target.size, target.size.nodes);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

  YamlNode take() { return std::move(root_); }

 private:
  struct Size {
    int nodes = 1;
    int depth = 0;  // levels of containers, itself included
  };
  struct Frame {
    YamlNode node;
    YAML::anchor_t anchor = 0;
    Size size{1, 1};
    bool wants_key = true;
    YamlEntry entry;  // of a map: the key whose value comes next
  };
  struct Anchored {
    YamlNode node;
    Size size;
  };

  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw YamlProblem(place_of(mark), "YAML tags (!...) are not supported; remove the tag");
    }
  }
  [[noreturn]] static void too_deep(const YAML::Mark& mark) {
    throw YamlProblem(place_of(mark), fmt::format("nested deeper than {} levels", YamlLimits::kDepth));
  }

  // yaml-cpp lets the end of the file close a quoted text.
  void refuse_open_quotes(const YAML::Mark& mark) const {
    size_t at = static_cast<size_t>(mark.pos);
    if (mark.pos < 0 || at >= text_.size()) return;
    const char quote = text_[at];
    if (quote != '"' && quote != '\'') return;
    for (++at; at < text_.size(); ++at) {
      if (text_[at] == quote && quote == '\'' && text_.substr(at + 1, 1) == "'") {
        ++at;
      } else if (text_[at] == '\\' && quote == '"') {
        ++at;
      } else if (text_[at] == quote) {
        return;
      }
    }
    throw YamlProblem(place_of(mark), "these quotes are never closed");
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    refuse_tag(mark, tag);
    refuse_as_key(place_of(mark));
    if (frames_.size() >= YamlLimits::kDepth) too_deep(mark);
    Frame frame;
    frame.node.kind = kind;
    frame.node.place = place_of(mark);
    frame.anchor = anchor;
    frames_.push_back(std::move(frame));
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    add(std::move(frame.node), frame.anchor, frame.size, 1);
  }

  bool is_key() const {
    return !frames_.empty() && frames_.back().node.kind == YamlNode::Kind::kMap && frames_.back().wants_key;
  }
  void refuse_as_key(Place place) const {
    if (!is_key()) return;
    throw YamlProblem(place, "a key must be a word, not a list or a section; is a bracket never closed?");
  }

  // `size` is that of the finished node; `new_nodes` says how many of its nodes have not been counted yet.
  void add(YamlNode node, YAML::anchor_t anchor, Size size, int new_nodes) {
    nodes_ += new_nodes;
    if (nodes_ > YamlLimits::kNodes) {
      throw YamlProblem(node.place, fmt::format("more than {} values", YamlLimits::kNodes));
    }
    if (anchor != 0) {
      if (static_cast<int>(anchors_.size()) >= YamlLimits::kAliases) {
        throw YamlProblem(node.place, fmt::format("more than {} anchors", YamlLimits::kAliases));
      }
      anchors_[anchor] = {node, size};
    }
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    frame.size.nodes += size.nodes;
    frame.size.depth = std::max(frame.size.depth, size.depth + 1);
    if (frame.node.kind == YamlNode::Kind::kList) {
      frame.node.items.push_back(std::move(node));
    } else if (frame.wants_key) {
      if (node.kind == YamlNode::Kind::kNothing) {
        throw YamlProblem(node.place, "a key must be a word, not empty");
      }
      if (node.kind != YamlNode::Kind::kScalar) refuse_as_key(node.place);
      if (node.text == "<<" && !node.quoted) {
        throw YamlProblem(node.place, "merge keys (<<) are not supported; write the keys out");
      }
      frame.entry.key = std::move(node.text);
      frame.entry.place = node.place;
      frame.wants_key = false;
    } else {
      frame.entry.value = std::move(node);
      frame.node.entries.push_back(std::move(frame.entry));
      frame.entry = {};
      frame.wants_key = true;
    }
  }

  std::string_view text_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, Anchored> anchors_;
  YamlNode root_;
  int documents_ = 0;
  int aliases_ = 0;
  int nodes_ = 0;
};

}  // namespace

YamlNode parse_yaml(std::string_view text) {
  const std::string checked = checked_text(text);
  TreeBuilder builder(checked);
  std::istringstream stream(checked);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    constexpr char kEndOfFile = '\x04';  // yaml-cpp's
    if (error.msg.ends_with(kEndOfFile)) throw YamlProblem(place_of(error.mark), "the file ends within quotes");
    throw YamlProblem(place_of(error.mark),
                      fmt::format("not valid YAML: {}; check the indentation, colons and quotes here "
                                  "and on the line before",
                                  shown_text(error.msg)));
  }
  return builder.take();
}

}  // namespace gemma_sft
