// Server-sent events: the bytes of a text/event-stream -> events, as the HTML standard reads them (fields id, event and
// data; comments and other fields are passed over).
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace gemma_sft {

struct StreamedEvent {
  std::string id;    // of this event or, where it has none, of the last one that had
  std::string name;  // "message" where it has none
  std::string data;  // lines joined with '\n'
};

// Bytes may come in pieces of any size. An event longer than `max_event_bytes` is passed over.
class EventStreamParser {
 public:
  explicit EventStreamParser(std::function<void(const StreamedEvent&)> on_event, size_t max_event_bytes = 1'000'000)
      : on_event_(std::move(on_event)), max_event_bytes_(max_event_bytes) {}

  // What on_event throws goes through.
  void append(std::string_view bytes);

 private:
  void take_line();

  std::function<void(const StreamedEvent&)> on_event_;
  size_t max_event_bytes_;
  std::string line_;
  bool after_return_ = false;  // a '\n' behind a '\r' ends no second line
  bool at_start_ = true;       // of the stream, where a byte order mark may stand
  bool has_data_ = false;
  bool too_long_ = false;
  StreamedEvent event_;
};

}  // namespace gemma_sft
