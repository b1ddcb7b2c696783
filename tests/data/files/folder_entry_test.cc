#include "data/files/folder_entry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "configs/error.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
namespace fs = std::filesystem;

std::string refusal(const fs::path& folder, const std::string& name) {
  try {
    return has_folder_entry(folder, name) ? "accepted" : "absent";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
}

TEST(ListFolder, GivesEverythingAndNothingForNoFolder) {
  const TempDir dir;
  dir.write("a", "");
  dir.write(".b", "");
  fs::create_symlink("nowhere", dir / "c");
  EXPECT_THAT(list_folder(dir.path()), UnorderedElementsAre(dir / "a", dir / ".b", dir / "c"));
  EXPECT_THAT(list_folder(dir / "absent"), IsEmpty());
}

// Absent and unreadable are two things: a run that took its folder for empty would begin anew.
TEST(ListFolder, WhatCannotBeListedIsAnError) {
  const TempDir dir;
  const fs::path loop = dir / "loop";
  fs::create_symlink("loop", loop);
  for (const fs::path& folder : {dir.write("file", ""), loop}) {
    try {
      list_folder(folder);
      ADD_FAILURE() << folder;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      EXPECT_THAT(error.what(), HasSubstr(folder.string()));
    }
  }
}

TEST(FolderEntry, PlainFilesAreThereAndOthersAbsent) {
  const TempDir dir;
  dir.write("model/config.json", "{}");
  EXPECT_TRUE(has_folder_entry(dir / "model", "config.json"));
  EXPECT_FALSE(has_folder_entry(dir / "model", "other.json"));
  EXPECT_FALSE(has_folder_entry(dir / "nowhere", "config.json"));
  fs::create_directory_symlink(dir / "model", dir / "link");  // what the user named may be a link
  EXPECT_TRUE(has_folder_entry(dir / "link", "config.json"));
}

TEST(FolderEntry, NamesThatAreNoPlainNamesAreRefused) {
  const TempDir dir;
  dir.write("secret", "x");
  dir.write("model/config.json", "{}");
  for (const std::string& name :
       {std::string(""), std::string("."), std::string(".."), std::string("../secret"), std::string("./config.json"),
        std::string("sub/../config.json"), (dir / "secret").string(), std::string("config.json\0x", 13)}) {
    EXPECT_THAT(refusal(dir / "model", name), HasSubstr("is not the name of a file")) << name;
  }
  for (const char* name : {"foo..bar", ".hidden", "...", "-", " "}) {
    dir.write(std::string("model/") + name, "x");
    EXPECT_EQ(refusal(dir / "model", name), "accepted") << name;
  }
}

TEST(FolderEntry, LinksThatLeaveTheFolderAreRefused) {
  const TempDir dir;
  dir.write("secret", "x");
  dir.write("model/real", "x");
  dir.write("model2/real", "x");
  fs::create_symlink("real", dir / "model/inside");
  fs::create_symlink("inside", dir / "model/chain");
  fs::create_symlink("../secret", dir / "model/outside");
  fs::create_symlink(dir / "secret", dir / "model/absolute");
  fs::create_symlink("outside", dir / "model/chain_out");
  fs::create_symlink("../model2/real", dir / "model/sibling");  // a name that begins like the folder's
  fs::create_symlink("nowhere", dir / "model/dangling");
  fs::create_symlink("circle", dir / "model/circle");
  EXPECT_EQ(refusal(dir / "model", "inside"), "accepted");
  EXPECT_EQ(refusal(dir / "model", "chain"), "accepted");
  for (const char* name : {"outside", "absolute", "chain_out", "sibling"}) {
    EXPECT_THAT(refusal(dir / "model", name), HasSubstr("outside the folder, and is not followed; copy the file"));
  }
  EXPECT_THAT(refusal(dir / "model", "dangling"), HasSubstr("leads nowhere: No such file"));
  EXPECT_THAT(refusal(dir / "model", "circle"), HasSubstr("leads nowhere: Too many levels"));
}

// snapshots/<commit>/ of the cache links into blobs/ beside it.
TEST(FolderEntry, LinksInAHuggingFaceCacheMayLeadToThatModelsBlobs) {
  const TempDir dir;
  const std::string model = "hub/models--google--gemma-2b/";
  dir.write(model + "blobs/abc", "x");
  dir.write("hub/models--other--model/blobs/abc", "x");
  dir.write("secret", "x");
  const fs::path snapshot = dir / (model + "snapshots/0123");
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/abc", snapshot / "config.json");
  fs::create_symlink("../../../models--other--model/blobs/abc", snapshot / "other.json");
  fs::create_symlink("../../../../secret", snapshot / "secret.json");
  EXPECT_EQ(refusal(snapshot, "config.json"), "accepted");
  EXPECT_THAT(refusal(snapshot, "other.json"), HasSubstr("outside the folder"));
  EXPECT_THAT(refusal(snapshot, "secret.json"), HasSubstr("outside the folder"));
  fs::create_directory_symlink(dir / "hub", dir / "elsewhere");  // the cache itself may be a link
  EXPECT_EQ(refusal(dir / "elsewhere/models--google--gemma-2b/snapshots/0123", "config.json"), "accepted");
  // The names alone do not make a cache of any folder.
  dir.write("plain/secret", "x");
  fs::create_directories(dir / "plain/snapshots/0123");
  fs::create_symlink("../../secret", dir / "plain/snapshots/0123/config.json");
  EXPECT_THAT(refusal(dir / "plain/snapshots/0123", "config.json"), HasSubstr("outside the folder"));
}

TEST(FolderEntry, WhatIsNoRegularFileIsRefused) {
  const TempDir dir;
  dir.write("model/folder/x", "x");
  ASSERT_EQ(::mkfifo((dir / "model/pipe").c_str(), 0600), 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = dir / "model/socket";
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_THAT(refusal(dir / "model", "folder"), HasSubstr("expected a file, found a folder"));
  EXPECT_THAT(refusal(dir / "model", "pipe"), HasSubstr("expected a file, found a pipe, socket or device"));
  EXPECT_THAT(refusal(dir / "model", "socket"), HasSubstr("expected a file, found a pipe, socket or device"));
  EXPECT_THAT(refusal("/dev", "zero"), HasSubstr("expected a file, found a pipe, socket or device"));
  ::close(socket);
}

}  // namespace
}  // namespace gemma_sft
