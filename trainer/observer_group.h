// Several observers as one: each is told everything, in the given order. No torch.
#pragma once

#include <vector>

#include "trainer/run/run_observer.h"

namespace gemma_sft {

// Owns nothing.
class ObserverGroup : public RunObserver {
 public:
  explicit ObserverGroup(std::vector<RunObserver*> observers) : observers_(std::move(observers)) {}

  void on_start(int64_t first_step, int64_t total_steps) override {
    for (RunObserver* observer : observers_) observer->on_start(first_step, total_steps);
  }
  void on_step(const StepRecord& record) override {
    for (RunObserver* observer : observers_) observer->on_step(record);
  }
  void on_eval(const EvalRecord& record) override {
    for (RunObserver* observer : observers_) observer->on_eval(record);
  }
  void on_checkpoint(const CheckpointRecord& record) override {
    for (RunObserver* observer : observers_) observer->on_checkpoint(record);
  }
  void on_note(const std::string& message) override {
    for (RunObserver* observer : observers_) observer->on_note(message);
  }
  void on_warning(const std::string& message) override {
    for (RunObserver* observer : observers_) observer->on_warning(message);
  }
  void on_finish() override {
    for (RunObserver* observer : observers_) observer->on_finish();
  }

 private:
  std::vector<RunObserver*> observers_;
};

}  // namespace gemma_sft
