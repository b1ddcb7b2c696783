#include "data/files/file_system.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

template <typename Action>
std::string message_of(Action action, ErrorKind kind = ErrorKind::kIo) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

TEST(FileSystem, WhatIsAppendedIsInTheFile) {
  const TempDir dir;
  FileSystem& files = real_file_system();
  dir.write("a", "old and longer");
  auto file = files.create(dir / "a");
  file->append("one ");
  file->append(std::string(3 << 20, 'x'));
  file->sync();
  file->close();
  EXPECT_EQ(read_file(dir / "a"), "one " + std::string(3 << 20, 'x'));
  file = files.open_append(dir / "b");
  file->append("1");
  file->close();
  file = files.open_append(dir / "b");
  file->append("2");
  file->close();
  EXPECT_EQ(read_file(dir / "b"), "12");
  files.truncate(dir / "b", 1);
  EXPECT_EQ(read_file(dir / "b"), "1");
}

TEST(FileSystem, MakesRenamesAndRemoves) {
  const TempDir dir;
  FileSystem& files = real_file_system();
  files.make_directories(dir / "x/y/z/");
  files.make_directories(dir / "x/y");
  files.make_directories("");
  dir.write("x/y/f", "1");
  files.rename(dir / "x/y/f", dir / "x/g");
  files.sync_directory(dir / "x");
  files.remove(dir / "x/absent");
  files.remove_tree(dir / "x/absent");
  EXPECT_THAT(dir.list(), ElementsAre("x/", "x/g", "x/y/", "x/y/z/"));
  files.remove(dir / "x/g");
  files.remove_tree(dir / "x/y");
  EXPECT_THAT(dir.list(), ElementsAre("x/"));
  dir.write("plain", "");
  files.remove_tree(dir / "plain");
  EXPECT_THAT(dir.list(), ElementsAre("x/"));
}

TEST(FileSystem, MakingAFolderWhereAFileIsNamesTheFile) {
  const TempDir dir;
  dir.write("f", "");
  EXPECT_EQ(message_of([&] { real_file_system().make_directories(dir / "f/g"); }),
            (dir / "f").string() + ": cannot make the folder: Not a directory");
}

TEST(FileSystem, RemovingATreeNeverFollowsSymbolicLinks) {
  const TempDir dir;
  dir.write("outside/precious", "1");
  dir.write("tree/deep/er/f", "1");
  fs::create_directory_symlink(dir / "outside", dir / "tree/deep/link");
  fs::create_symlink("nowhere", dir / "tree/dangling");
  fs::create_directory_symlink(dir / "outside", dir / "link");
  real_file_system().remove_tree(dir / "tree");
  real_file_system().remove_tree(dir / "link");
  EXPECT_THAT(dir.list(), ElementsAre("outside/", "outside/precious"));
}

TEST(FileSystem, AFullDiskIsAnErrorWithPathOperationSizesAndRemedy) {
  const auto file = real_file_system().open_append("/dev/full");
  EXPECT_THAT(message_of([&] { file->append("abc"); }),
              MatchesRegex("/dev/full: cannot write: No space left on device: 3 bytes needed, [0-9]+ bytes.* free; "
                           "free some space or choose another place"));
}

TEST(FileSystem, RoomIsAskedForBeforeALargeWrite) {
  const TempDir dir;
  real_file_system().require_space(dir / "not/yet/there", 1);
  real_file_system().require_space("", 1);
  real_file_system().require_space("/proc", 1ull << 60);  // says that it has no blocks at all
  EXPECT_THAT(message_of([&] { real_file_system().require_space(dir / "not/yet/there", 1ull << 60); }),
              MatchesRegex(".*/not/yet/there: cannot reserve space: No space left on device: 1152921504606846976 bytes "
                           "\\(1152921504.6 GB\\) needed, [0-9]+ bytes.* free; free some space.*"));
}

TEST(FileSystem, ErrorsNamePathAndOperation) {
  const TempDir dir;
  FileSystem& files = real_file_system();
  const std::string absent = dir / "absent/f";
  EXPECT_EQ(message_of([&] { files.create(absent); }), absent + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { files.open_append(absent); }), absent + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { files.truncate(absent, 1); }), absent + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { files.sync_directory(absent); }), absent + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { files.rename(absent, dir / "g"); }),
            (dir / "g").string() + ": cannot rename " + absent + " to this name: No such file or directory");
  EXPECT_THAT(message_of([&] { files.remove(dir.path()); }), HasSubstr(": cannot remove: "));
  EXPECT_EQ(message_of([&] { read_file(absent); }), absent + ": cannot open: No such file or directory");
}

TEST(FileSystem, TooManyOpenFilesSaysWhichLimitToRaise) {
  const TempDir dir;
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  const rlimit none = {0, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::string message = message_of([&] { real_file_system().create(dir / "f"); });
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old_limit), 0);
  EXPECT_EQ(message,
            (dir / "f").string() + ": cannot open: Too many open files; raise the limit of open files (ulimit -n)");
}

TEST(FileSystem, OpenFilesAreNotHandedToChildProcesses) {
  const TempDir dir;
  const auto file = real_file_system().create(dir / "f");
  int found = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    if (fs::read_symlink(entry.path(), error) != dir / "f") continue;
    ++found;
    EXPECT_TRUE(::fcntl(std::stoi(entry.path().filename()), F_GETFD) & FD_CLOEXEC);
  }
  EXPECT_EQ(found, 1);
}

// A terminal: the one kind of file that a writer can be made to wait at, and so be interrupted.
struct Terminal {
  Terminal() {
    master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || ::grantpt(master) != 0 || ::unlockpt(master) != 0) throw std::runtime_error("no terminal");
    path = ::ptsname(master);
    keeps_it_open = ::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
    termios raw;
    ::tcgetattr(keeps_it_open, &raw);
    ::cfmakeraw(&raw);
    ::tcsetattr(keeps_it_open, TCSANOW, &raw);
  }
  ~Terminal() {
    ::close(keeps_it_open);
    ::close(master);
  }
  fs::path path;
  int master = -1, keeps_it_open = -1;
};

TEST(FileSystem, InterruptedAndShortWritesAreInvisible) {
  const Terminal terminal;
  static volatile sig_atomic_t interruptions = 0;
  struct sigaction action = {};
  struct sigaction old_action;
  action.sa_handler = [](int) { interruptions = interruptions + 1; };  // without SA_RESTART: write gives EINTR
  ASSERT_EQ(::sigaction(SIGALRM, &action, &old_action), 0);
  sigset_t alarm;
  sigset_t old_mask;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_BLOCK, &alarm, &old_mask);  // the reader inherits it, so that every signal hits the writer
  std::string sent;
  for (int i = 0; sent.size() < 300'000; ++i) sent += std::to_string(i) + ' ';
  std::string received;
  std::thread reader([&] {
    std::string block(10'000, '\0');
    while (received.size() < sent.size()) {
      const ssize_t count = ::read(terminal.master, block.data(), block.size());
      if (count <= 0) break;
      received.append(block, 0, static_cast<size_t>(count));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  const itimerval every_half_millisecond = {{0, 500}, {0, 500}};
  ::setitimer(ITIMER_REAL, &every_half_millisecond, nullptr);
  const auto file = real_file_system().open_append(terminal.path);
  file->append(sent);
  file->close();
  const itimerval never = {};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  reader.join();
  ::sigaction(SIGALRM, &old_action, nullptr);
  EXPECT_GT(interruptions, 5);
  EXPECT_EQ(received, sent);
}

TEST(FileSystem, ANewFileTakesTheNameOfWhatWasThereAndNeverWritesIntoIt) {
  const TempDir dir;
  const fs::path precious = dir.write("outside/precious", "precious");
  const std::function<void(const fs::path&)> plants[] = {
      [](const fs::path&) {},
      [](const fs::path& name) { ::mkfifo(name.c_str(), 0600); },
      [&](const fs::path& name) { fs::create_symlink(precious, name); },
      [&](const fs::path& name) { fs::create_hard_link(precious, name); },
      [](const fs::path& name) { fs::create_symlink("nowhere", name); },
  };
  for (size_t i = 0; i < std::size(plants); ++i) {
    plants[i](dir / "f");
    const auto file = real_file_system().create(dir / "f");
    file->append("new");
    file->close();
    EXPECT_EQ(read_file(dir / "f"), "new") << i;
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(dir / "f"))) << i;
    EXPECT_EQ(fs::hard_link_count(dir / "f"), 1u) << i;
    EXPECT_EQ(read_file(precious), "precious") << i;
    fs::remove(dir / "f");
    plants[i](dir / ".f.tmp");
    write_file_durably(real_file_system(), dir / "f", "durable");
    EXPECT_EQ(read_file(dir / "f"), "durable") << i;
    EXPECT_EQ(read_file(precious), "precious") << i;
    fs::remove(dir / "f");
  }
  EXPECT_THAT(dir.list(), ElementsAre("outside/", "outside/precious"));
  fs::create_directory(dir / "f");
  EXPECT_EQ(message_of([&] { real_file_system().create(dir / "f"); }),
            (dir / "f").string() + ": cannot replace: Is a directory");
  const Terminal terminal;
  EXPECT_EQ(message_of([&] { real_file_system().create(terminal.path); }),
            terminal.path.string() + ": expected a file to write to, found a device; move it away");
  EXPECT_TRUE(fs::exists(terminal.path));
}

// As in a copy of a run that was made with `cp -al`.
TEST(FileSystem, WhatIsAppendedIsNotSeenUnderTheOtherNamesOfAFile) {
  const TempDir dir;
  const fs::path copy = dir.write("copy", "row 1\n");
  fs::create_hard_link(copy, dir / "f");
  const auto file = real_file_system().open_append(dir / "f");
  file->append("row 2\n");
  file->close();
  EXPECT_EQ(read_file(dir / "f"), "row 1\nrow 2\n");
  EXPECT_EQ(read_file(copy), "row 1\n");
  EXPECT_THAT(dir.list(), ElementsAre("copy", "f"));
}

TEST(FileSystem, RowsAreAppendedToAPlainFileOnlyWithoutHanging) {
  const TempDir dir;
  const fs::path precious = dir.write("outside/precious", "precious");
  const auto message = [&] { return message_of([&] { real_file_system().open_append(dir / "f"); }); };
  fs::create_symlink(precious, dir / "f");
  EXPECT_EQ(message(), (dir / "f").string() +
                           ": cannot open: Too many levels of symbolic links; it is a symbolic "
                           "link that is not followed, or leads to itself: move it away");
  EXPECT_EQ(read_file(precious), "precious");
  fs::remove(dir / "f");
  ASSERT_EQ(::mkfifo((dir / "f").c_str(), 0600), 0);
  EXPECT_EQ(message(),
            (dir / "f").string() + ": cannot open: No such device or address; it is a pipe or a socket: move it away");
  const int reader = ::open((dir / "f").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  EXPECT_EQ(message(), (dir / "f").string() + ": expected a file to write to, found a pipe; move it away");
  ::close(reader);
}

TEST(FileSystem, ALimitOfFileSizesSaysWhichLimitToRaise) {
  const TempDir dir;
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);  // as the programs do
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit small = {5, old_limit.rlim_max};
  const auto file = real_file_system().create(dir / "f");
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] { file->append("longer than that"); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(message,
              MatchesRegex(".*/f: cannot write: File too large: 11 bytes needed, .* free; raise the limit of a "
                           "file's size \\(ulimit -f\\), or choose another file system"));
}

TEST(WriteNewFile, IsOnTheDiskBeforeItIsClosedAndTakesTheNameOfWhatWasThere) {
  const TempDir dir;
  const fs::path precious = dir.write("precious", "precious");
  fs::create_symlink(precious, dir / "f");
  FailingFileSystem files;
  write_new_file(files, dir / "f", "new");
  EXPECT_THAT(files.journal(), ElementsAre("create f", "append f", "sync f", "close f"));
  EXPECT_EQ(read_file(dir / "f"), "new");
  EXPECT_EQ(read_file(precious), "precious");
}

TEST(PlainPath, IsAbsoluteAndEndsWithAName) {
  const fs::path here = fs::current_path();
  const std::vector<std::pair<std::string, fs::path>> cases = {
      {"/a/b", "/a/b"}, {"/a/b/", "/a/b"},         {"/a/./b//../c/.", "/a/c"}, {"/a/..", "/"},
      {"/", "/"},       {"x/", here / "x"},        {"./x/y/..", here / "x"},   {".", here},
      {"", here},       {"..", here.parent_path()}};
  for (const auto& [path, plain] : cases) EXPECT_EQ(plain_path(path).string(), plain.string()) << path;
}

TEST(PlainPath, FollowsNoLink) {
  const TempDir dir;
  fs::create_directories(dir / "elsewhere/folder");
  fs::create_directory_symlink(dir / "elsewhere/folder", dir / "link");
  EXPECT_EQ(plain_path(dir / "link/"), dir / "link");
  EXPECT_EQ(plain_path(dir / "link/.."), dir.path());
}

TEST(WriteFileDurably, SyncsTheFileBeforeTheRenameAndTheFolderAfterIt) {
  const TempDir dir;
  FailingFileSystem files;
  write_file_durably(files, dir / "f", "new");
  EXPECT_EQ(read_file(dir / "f"), "new");
  EXPECT_THAT(files.journal(), ElementsAre("create .f.tmp", "append .f.tmp", "sync .f.tmp", "close .f.tmp", "rename f",
                                           "sync_directory " + dir.path().filename().string()));
}

TEST(WriteFileDurably, AFailureOfAnyCallLeavesTheOldFileAndNoRest) {
  for (const FaultKind kind : {FaultKind::kOnce, FaultKind::kFromNowOn}) {
    bool failed = true;
    for (int64_t call = 0; failed; ++call) {
      const TempDir dir;
      dir.write("f", "old");
      FailingFileSystem files({.call = call, .kind = kind, .error_number = EIO, .written_fraction = 0.5});
      try {
        write_file_durably(files, dir / "f", "new");
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("Input/output error"));
      }
      failed = files.has_failed();
      // The sixth call is the folder's fsync: the new file is in place, but not yet promised.
      EXPECT_EQ(read_file(dir / "f"), failed && call < 5 ? "old" : "new") << call;
      if (kind == FaultKind::kOnce) {
        EXPECT_THAT(dir.list(), ElementsAre("f")) << call;
      }
      ASSERT_LT(call, 100);
    }
  }
}

TEST(WriteFileDurably, ACrashAtAnyCallLeavesTheOldFileOrTheNewOne) {
  bool crashed = true;
  int64_t call = 0;
  for (; crashed; ++call) {
    const TempDir dir;
    dir.write("f", "old");
    FailingFileSystem files({.call = call, .kind = FaultKind::kCrash, .written_fraction = 0.5});
    crashed = false;
    try {
      write_file_durably(files, dir / "f", "new");
    } catch (const SimulatedCrash&) {
      crashed = true;
    }
    EXPECT_EQ(read_file(dir / "f"), crashed && call < 5 ? "old" : "new") << call;
    write_file_durably(real_file_system(), dir / "f", "newer");  // whatever was left behind is no obstacle
    EXPECT_THAT(dir.list(), ElementsAre("f"));
  }
  EXPECT_EQ(call, 7);
}

TEST(ReadFile, GivesAllBytesAndGuardsAgainstSurprises) {
  const TempDir dir;
  const std::string bytes = std::string("a\0b\r\n", 5) + std::string(100'000, 'c');
  EXPECT_EQ(read_file(dir.write("f", bytes)), bytes);
  EXPECT_EQ(read_file(dir.write("empty", "")), "");
  EXPECT_EQ(read_file(dir / "f", 100'005), bytes);
  EXPECT_EQ(message_of([&] { read_file(dir / "f", 100'004); }),
            (dir / "f").string() + ": 100005 bytes long, expected at most 100004");
  EXPECT_THAT(read_file("/proc/self/status"), HasSubstr("Name:"));  // says of itself that it has no bytes
  EXPECT_THAT(message_of([&] { read_file("/proc/self/status", 10); }), HasSubstr("longer than 10 bytes"));
}

TEST(ReadFile, RefusesWhatIsNotARegularFileWithoutHanging) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(message_of([&] { read_file(dir.path()); }),
            dir.path().string() + ": expected a regular file, found a folder");
  EXPECT_EQ(message_of([&] { read_file(dir / "pipe"); }),
            (dir / "pipe").string() + ": expected a regular file, found a pipe; write its contents to a file first");
  EXPECT_EQ(message_of([&] { read_file("/dev/zero"); }), "/dev/zero: expected a regular file, found a device");
}

}  // namespace
}  // namespace gemma_sft
