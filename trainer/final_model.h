// The folder final_model/ of a run: a Hugging Face model, or with LoRA a PEFT adapter.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "configs/run_config.h"
#include "data/files/file_system.h"
#include "model/adapter_config.h"
#include "model/gemma.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/train_state.h"
#include "trainer/run/run_observer.h"
#include "trainer/run_completion.h"
#include "trainer/run_training.h"
#include "trainer/train_setup.h"

namespace gemma_sft {

// `destination` becomes what `write` puts into the temporary folder it is given (SHA-256 by file name comes back), and
// SHA256SUMS with those digests: hidden, synced, renamed. A folder that is there already is replaced or refused.
enum class Existing { kReplace, kRefuse };
std::map<std::string, std::string> write_folder(
    const std::filesystem::path& destination, FileSystem& files,
    const std::function<std::map<std::string, std::string>(const std::filesystem::path&)>& write,
    Existing existing = Existing::kReplace);

// Removes what a crash in write_folder left beside `destination`, and gives an old folder its name back where the new
// one did not get it.
void remove_left_overs(const std::filesystem::path& destination, FileSystem& files);

// What an adapter says its base is: `configured` where that is a hub id and the folder is the cache's of that model,
// else where the folder is, whatever the folders above it are called.
AdapterBase adapter_base(const ModelSection& configured, const std::filesystem::path& model_folder);

// final_model/ of a run that is over, from the last step or, with evaluation.keep_best, from the best one; gives what
// completed.json is to say. Throws StopRequested when a stop signal comes before all of it is written; nothing is left
// of it then.
RunCompletion export_final_model(const TrainRequest& request, const TrainSetup& setup, const TrainState& state,
                                 const CheckpointFolders& checkpoints, Gemma& model, FileSystem& files,
                                 RunObserver& observer);

}  // namespace gemma_sft
