#include "tests/testing/power_cut.h"

#include <fcntl.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <stdexcept>

namespace gemma_sft {

namespace fs = std::filesystem;

namespace {

bool happens(std::mt19937_64& random, int percent) { return static_cast<int>(random() % 100) < percent; }

}  // namespace

// A file or a folder: how it is for programs (`now`), what the disk holds for certain, and what is on its way there.
struct ModelDisk::Node {
  struct Write {
    uint64_t offset = 0;
    std::string bytes;
    bool truncates = false;  // to `offset`
  };
  struct NameChange {
    std::string name;
    std::shared_ptr<Node> node;  // null: the name goes
    std::string from;            // a rename: this name goes in the same moment
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;

  bool is_folder = false;
  std::string bytes, durable_bytes;
  std::vector<Write> writes;
  Names names, durable_names;
  std::vector<NameChange> changes;

  static void apply(const Write& write, std::string& to) {
    if (write.truncates) {
      to.resize(write.offset);
      return;
    }
    if (to.size() < write.offset + write.bytes.size()) to.resize(write.offset + write.bytes.size());
    to.replace(write.offset, write.bytes.size(), write.bytes);
  }
  static void apply(const NameChange& change, Names& to) {
    if (!change.from.empty()) {
      if (!to.contains(change.from)) return;  // what was to be renamed never came to the disk
      to.erase(change.from);
    }
    if (change.node) {
      to[change.name] = change.node;
    } else {
      to.erase(change.name);
    }
  }
  void change(Write write) {
    apply(write, bytes);
    writes.push_back(std::move(write));
  }
  void change(NameChange change) {
    apply(change, names);
    changes.push_back(std::move(change));
  }
  void sync() {
    durable_bytes = bytes;
    writes.clear();
    durable_names = names;
    changes.clear();
  }

  std::string bytes_after(UnsyncedBytes fate, std::mt19937_64& random) const {
    if (fate == UnsyncedBytes::kKept) return bytes;
    std::string found = durable_bytes;
    for (const Write& write : writes) {
      switch (fate) {
        case UnsyncedBytes::kDropped:
        case UnsyncedBytes::kKept: break;
        case UnsyncedBytes::kTenPercentKept:
          if (happens(random, 10)) apply(write, found);
          break;
        case UnsyncedBytes::kHalfKept:
          if (happens(random, 50)) apply(write, found);
          break;
        case UnsyncedBytes::kTornAt512: apply_torn(write, 512, random, found); break;
        case UnsyncedBytes::kTornAt4096: apply_torn(write, 4096, random, found); break;
      }
    }
    return found;
  }
  // Each sector of the write comes to the disk or does not; where a later one does, zeros fill the gap.
  static void apply_torn(const Write& write, uint64_t sector, std::mt19937_64& random, std::string& found) {
    if (write.truncates) {
      if (happens(random, 50)) apply(write, found);
      return;
    }
    const uint64_t end = write.offset + write.bytes.size();
    for (uint64_t begin = write.offset; begin < end;) {
      const uint64_t next = std::min(end, (begin / sector + 1) * sector);
      if (happens(random, 50)) apply({begin, write.bytes.substr(begin - write.offset, next - begin), false}, found);
      begin = next;
    }
  }

  Names names_after(UnsyncedNames fate, std::mt19937_64& random) const {
    if (fate == UnsyncedNames::kKept) return names;
    Names found = durable_names;
    const size_t first = fate == UnsyncedNames::kFirstOnesKept ? random() % (changes.size() + 1) : 0;
    for (size_t i = 0; i < changes.size(); ++i) {
      switch (fate) {
        case UnsyncedNames::kDropped:
        case UnsyncedNames::kKept: break;
        case UnsyncedNames::kTenPercentKept:
          if (happens(random, 10)) apply(changes[i], found);
          break;
        case UnsyncedNames::kHalfKept:
          if (happens(random, 50)) apply(changes[i], found);
          break;
        case UnsyncedNames::kFirstOnesKept:
          if (i < first) apply(changes[i], found);
          break;
      }
    }
    return found;
  }

  void write_after(const PowerCut& cut, std::mt19937_64& random, const fs::path& destination) const {
    if (!is_folder) {
      const std::string found = bytes_after(cut.bytes, random);
      std::ofstream(destination, std::ios::binary).write(found.data(), static_cast<std::streamsize>(found.size()));
      return;
    }
    fs::create_directory(destination);
    for (const auto& [name, node] : names_after(cut.names, random)) {
      node->write_after(cut, random, destination / name);
    }
  }

  static std::shared_ptr<Node> read(const fs::path& path) {
    auto node = std::make_shared<Node>();
    node->is_folder = fs::is_directory(path);
    if (!node->is_folder) {
      std::ifstream stream(path, std::ios::binary);
      node->bytes.assign(std::istreambuf_iterator<char>(stream), {});
    } else {
      for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
        node->names[entry.path().filename().string()] = read(entry.path());
      }
    }
    node->sync();
    return node;
  }

  // The node at a path below this one, or null.
  Node* find(const fs::path& relative) {
    Node* node = this;
    for (const fs::path& part : relative) {
      if (part == "." || part.empty()) continue;
      const auto found = node->names.find(part.string());
      if (found == node->names.end()) return nullptr;
      node = found->second.get();
    }
    return node;
  }
};

PowerCut random_power_cut(std::mt19937_64& random) {
  return {static_cast<UnsyncedBytes>(random() % 6), static_cast<UnsyncedNames>(random() % 5)};
}

std::string describe(const PowerCut& cut) {
  const char* const bytes[] = {"dropped", "10 % kept", "50 % kept", "torn at 512", "torn at 4096", "kept"};
  const char* const names[] = {"dropped", "10 % kept", "50 % kept", "the first ones kept", "kept"};
  return std::string("unsynced bytes ") + bytes[static_cast<int>(cut.bytes)] + ", unsynced names " +
         names[static_cast<int>(cut.names)];
}

ModelDisk::ModelDisk(fs::path root) : root_(std::move(root)) {
  if (fs::exists(root_)) {
    tree_ = Node::read(root_);
  } else {
    tree_ = std::make_shared<Node>();
    tree_->is_folder = true;
  }
}

ModelDisk::~ModelDisk() = default;

void ModelDisk::apply(const SystemCall& call) {
  if (!call.succeeded || call.name == "note" || call.name == "close") return;
  const fs::path relative = call.path.lexically_relative(root_);
  Node* node = tree_->find(relative);
  const std::string name = relative.filename().string();
  Node* folder = tree_->find(relative.parent_path());
  if (call.name == "fsync") {
    if (node != nullptr) node->sync();  // a file that is removed already has none
    return;
  }
  if (call.name == "write") {
    if (node != nullptr) node->change(Node::Write{static_cast<uint64_t>(call.offset), call.bytes, false});
    return;
  }
  if (call.name == "ftruncate") {
    if (node != nullptr) node->change(Node::Write{static_cast<uint64_t>(call.offset), "", true});
    return;
  }
  if (relative == ".") {  // the root itself: it is there
    if (call.name == "open" || call.name == "mkdir") return;
    throw std::logic_error("ModelDisk: " + call.name + " of the root");
  }
  if (folder == nullptr) throw std::logic_error("ModelDisk: no folder for " + call.path.string());
  if (call.name == "open") {
    if (node == nullptr) {
      if (!(call.flags & O_CREAT)) throw std::logic_error("ModelDisk: opened, but not there: " + call.path.string());
      folder->change(Node::NameChange{name, std::make_shared<Node>(), ""});
    } else if ((call.flags & O_TRUNC) && !node->bytes.empty()) {
      node->change(Node::Write{0, "", true});
    }
  } else if (call.name == "mkdir") {
    auto made = std::make_shared<Node>();
    made->is_folder = true;
    folder->change(Node::NameChange{name, made, ""});
  } else if (call.name == "unlink" || call.name == "rmdir") {
    folder->change(Node::NameChange{name, nullptr, ""});
  } else if (call.name == "rename") {
    if (call.from.parent_path() != call.path.parent_path()) {
      throw std::logic_error("ModelDisk: renamed from one folder to another: " + call.path.string());
    }
    const auto moved = folder->names.find(call.from.filename().string());
    if (moved == folder->names.end())
      throw std::logic_error("ModelDisk: renamed, but not there: " + call.from.string());
    folder->change(Node::NameChange{name, moved->second, moved->first});
  } else {
    throw std::logic_error("ModelDisk: " + call.name + " is not known");
  }
}

void ModelDisk::write_after(const PowerCut& cut, std::mt19937_64& random, const fs::path& destination) const {
  tree_->write_after(cut, random, destination);
}

}  // namespace gemma_sft
