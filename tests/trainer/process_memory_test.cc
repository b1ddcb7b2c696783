#include "trainer/process_memory.h"

#include <gtest/gtest.h>

#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

// A machine with 1,000,000 kB available, in files as Linux shows them.
class ProcessMemoryTest : public ::testing::Test {
 protected:
  ProcessMemoryTest() {
    root_.write("proc/meminfo", "MemTotal:       4000000 kB\nMemFree:         200000 kB\nMemAvailable:   1000000 kB\n");
    root_.write("proc/self/status", "Name:\tgemma-sft\nVmPeak:\t  900000 kB\nVmSize:\t  800000 kB\nVmHWM:\t  1 kB\n");
    limit_address_space("unlimited");
  }
  void limit_address_space(const std::string& soft) {
    root_.write("proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units     \n"
                "Max cpu time              unlimited            unlimited            seconds   \n"
                "Max address space         " +
                    soft + "            unlimited            bytes     \n");
  }
  void cgroup_2(const std::string& path, const std::string& limit, const std::string& usage,
                const std::string& stat = "anon 5\ninactive_file 0\n") {
    root_.write("sys/fs/cgroup" + path + "/memory.max", limit + "\n");
    root_.write("sys/fs/cgroup" + path + "/memory.current", usage + "\n");
    root_.write("sys/fs/cgroup" + path + "/memory.stat", stat);
  }
  int64_t available() const { return available_memory_below(root_.path()); }

  static constexpr int64_t kOnMachine = 1'024'000'000;
  const TempDir root_;
};

TEST_F(ProcessMemoryTest, without_limits_it_is_what_the_machine_has_left) {
  EXPECT_EQ(available(), kOnMachine);
  root_.write("proc/self/cgroup", "0::/user.slice\n");
  EXPECT_EQ(available(), kOnMachine) << "the cgroup has no files";
  cgroup_2("/user.slice", "max", "5000");
  EXPECT_EQ(available(), kOnMachine);
  cgroup_2("/user.slice", "2000000000", "5000");
  EXPECT_EQ(available(), kOnMachine) << "the cgroup allows more than there is";
}

TEST_F(ProcessMemoryTest, a_cgroup_leaves_its_limit_without_what_is_used_but_for_cache_that_nobody_uses) {
  root_.write("proc/self/cgroup", "0::/job\n");
  cgroup_2("/job", "500000000", "300000000", "anon 1\nactive_file 7\ninactive_file 120000000\n");
  EXPECT_EQ(available(), 320'000'000);
  cgroup_2("/job", "500000000", "100", "inactive_file 200\n");
  EXPECT_EQ(available(), 500'000'000);
  cgroup_2("/job", "500000000", "600000000");  // lowered since
  EXPECT_EQ(available(), 0);
}

TEST_F(ProcessMemoryTest, the_limits_of_all_cgroups_above_count_too) {
  root_.write("proc/self/cgroup", "0::/pod/container\n");
  cgroup_2("/pod/container", "500000000", "100000000");
  EXPECT_EQ(available(), 400'000'000);
  cgroup_2("/pod", "450000000", "300000000");
  EXPECT_EQ(available(), 150'000'000);
  cgroup_2("", "120000000", "100000000");
  EXPECT_EQ(available(), 20'000'000);
}

TEST_F(ProcessMemoryTest, a_container_that_sees_its_cgroup_as_the_root_is_limited_by_that) {
  cgroup_2("", "300000000", "100000000");
  for (const char* path : {"/", "/docker/0123", "/../other"}) {
    root_.write("proc/self/cgroup", "0::" + std::string(path) + "\n");
    EXPECT_EQ(available(), 200'000'000) << path;
  }
}

TEST_F(ProcessMemoryTest, version_1_of_cgroups_is_known) {
  root_.write("proc/self/cgroup", "12:cpu,cpuacct:/a\n7:hugetlb,memory:/a/b\n1:name=systemd:/a\n0::/a\n");
  root_.write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  root_.write("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "70000000\n");
  EXPECT_EQ(available(), kOnMachine);
  root_.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "100000000\n");
  root_.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "70000000\n");
  root_.write("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 10000000\n");
  EXPECT_EQ(available(), 40'000'000);
}

TEST_F(ProcessMemoryTest, a_limit_of_the_address_space_leaves_what_is_not_mapped_yet) {
  limit_address_space("900000000");
  EXPECT_EQ(available(), 900'000'000 - 800'000 * int64_t{1024});
  limit_address_space("1000");
  EXPECT_EQ(available(), 0);
}

TEST_F(ProcessMemoryTest, files_that_say_nothing_are_no_limit) {
  root_.write("proc/self/cgroup", "\n0\n0:\nx::\n0::/job\n");
  cgroup_2("/job", "", "nonsense");
  EXPECT_EQ(available(), kOnMachine);
  root_.write("proc/meminfo", "MemTotal: 4000000 kB\n");
  EXPECT_EQ(available(), 0);
}

TEST(ProcessMemory, this_machine_tells) {
  EXPECT_GT(available_memory_bytes(), 0);
  EXPECT_GT(peak_resident_bytes(), 1 << 20);
}

}  // namespace
}  // namespace gemma_sft
