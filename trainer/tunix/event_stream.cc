#include "trainer/tunix/event_stream.h"

namespace gemma_sft {

void EventStreamParser::append(std::string_view bytes) {
  for (const char c : bytes) {
    const bool second_half = c == '\n' && after_return_;
    after_return_ = c == '\r';
    if (second_half) continue;
    if (c == '\n' || c == '\r') {
      take_line();
      line_.clear();
    } else if (line_.size() + event_.data.size() < max_event_bytes_) {
      line_ += c;
    } else {
      too_long_ = true;
    }
  }
}

void EventStreamParser::take_line() {
  std::string_view line = line_;
  if (at_start_ && line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
  at_start_ = false;
  if (line.empty()) {
    const StreamedEvent event = event_;
    const bool whole = has_data_ && !too_long_;
    event_.name.clear();
    event_.data.clear();
    has_data_ = too_long_ = false;
    if (whole) on_event_({event.id, event.name.empty() ? "message" : event.name, event.data});
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "id") {
    event_.id = value;
  } else if (field == "event") {
    event_.name = value;
  } else if (field == "data") {
    if (has_data_) event_.data += '\n';
    has_data_ = true;
    event_.data += value;
  }
}

}  // namespace gemma_sft
