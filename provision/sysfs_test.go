package provision

import (
	"fmt"
	"testing"
)

func TestSysfsWanted(t *testing.T) {
	sameText(t, `
sysfs//sys/kernel/mm/ksm/run = 0
sysfs//sys/module/nvme_core/parameters/io_timeout = 255
sysfs//sys/block/vda/queue/read_ahead_kb = 4096
5,3: error: Invalid file of /sys: A file of /sys looks like /sys/kernel/mm/ksm/run, and "/proc/sys/kernel/panic" is not below /sys.
6,3: error: Invalid file of /sys: A file of /sys looks like /sys/kernel/mm/ksm/run, and "/sys/../etc/passwd" is not below /sys.
7,33: error: Invalid value of a file of /sys: /sys/kernel/mm/ksm/sleep: the string holds '\n', where the kernel stops reading (several numbers are separated by blanks; a heredoc ends in a newline: use <<- with trimspace(), or a quoted string).
`, wantedText(t, `sysfs = {
  "/sys/kernel/mm/ksm/run" = false
  "/sys/module/nvme_core/parameters/io_timeout" = "255"
  "/sys/block/vda/queue/read_ahead_kb" = at_least(4096)
  "/proc/sys/kernel/panic" = 1
  "/sys/../etc/passwd" = 1
  "/sys/kernel/mm/ksm/sleep"  = "a\nb"
  "/sys/block/*/queue/scheduler" = "none"
}`, nil))

	h, _, _ := treeHost(t, map[string]string{
		"sys/block/vda/queue/scheduler": "[mq-deadline] none\n", "sys/block/vdb/queue/scheduler": "[none]\n", "sys/block/sr0/queue/scheduler": "[none]\n",
	})
	sameText(t, `
sysfs//sys/block/vda/queue/scheduler (tolerate) = none
sysfs//sys/block/vdb/queue/scheduler (warn) = mq-deadline`, wantedOn(t, `sysfs = {
  "/sys/block/*/queue/scheduler"   = best_effort("none")
  "/sys/block/sr0/queue/scheduler" = null
  "/sys/block/vdb/queue/scheduler" = "mq-deadline"
}`, h))
}

func TestSysfsSame(t *testing.T) {
	for _, tc := range []struct {
		path, live, want string
		same             bool
	}{
		{"/sys/kernel/mm/ksm/run", "0", " 0 ", true},
		{"/sys/kernel/mm/ksm/run", "0", "00", false},
		{"/sys/devices/virtual/workqueue/cpumask", "000000ff", "ff", true},
		{"/sys/devices/virtual/workqueue/cpumask", "00000000,000000ff", "ff", true},
		{"/sys/devices/virtual/workqueue/cpumask", "00000001,00000000", "100000000", true},
		{"/sys/devices/virtual/workqueue/cpumask", "00000001,00000000", "1", false},
		{"/sys/devices/virtual/workqueue/cpumask", "ff", "x", false},
		{"/sys/class/net/eth0/queues/rx-0/rps_cpus", "03", "3", true},
		{"/sys/module/printk/parameters/time", "Y", "1", true},
		{"/sys/module/printk/parameters/time", "Y", "y", true},
		{"/sys/module/printk/parameters/time", "N", "1", false},
		{"/sys/module/x/parameters/n", "2", "1", false},
		{"/sys/kernel/x", "Y", "1", false},
	} {
		if got := (sysfs{tc.path}).Same(Value{Text: tc.live}, Value{Text: tc.want}); got != tc.same {
			t.Errorf("%s: %q and %q: %v", tc.path, tc.live, tc.want, got)
		}
	}
	if (sysfs{"/sys/x"}).Same(Value{Absent: true}, Value{}) {
		t.Error("absent is empty")
	}
}

func TestSysfsSetting(t *testing.T) {
	h, _, text := treeHost(t, map[string]string{
		"sys/kernel/mm/transparent_hugepage/enabled":                            "always [madvise] never\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":                 "0\n",
		"sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages":              "0\n",
		"sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
		"sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
		"sys/devices/system/node/online":                                        "0-1\n",
		"sys/class/net/eth0/gro_flush_timeout":                                  "0\n",
	})
	const thp = "/sys/kernel/mm/transparent_hugepage/enabled"
	s, err := openSysfs(thp)
	if err != nil {
		t.Fatal(err)
	}
	before := text()
	if v, err := s.Read(t.Context(), h); err != nil || v.Text != "madvise" {
		t.Errorf("%v, %v", v, err)
	}
	if text() != before {
		t.Error("reading wrote")
	}
	if err := s.Write(t.Context(), h, Value{Text: "never"}); err != nil {
		t.Error(err)
	}
	if v, err := s.Read(t.Context(), h); err != nil || v.Text != "never" {
		t.Errorf("%v, %v", v, err)
	}
	for _, tc := range []struct{ path, want string }{
		{"/sys/kernel/mm/transparent_hugepage/enable", "the kernel has no such file (did you mean /sys/kernel/mm/transparent_hugepage/enabled?)"},
		{"/sys/kernel/mm/hugepages/hugepages-16384kB/nr_hugepages", "the kernel has no such file (this machine has pages of 2M and 1G)"},
		{"/sys/devices/system/node/node7/hugepages/hugepages-2048kB/nr_hugepages", "the kernel has no such file (NUMA nodes are 0, 1)"},
		{"/sys/class/net/eth1/gro_flush_timeout", "the kernel has no such file (there is no device eth1, but it may come later)"},
		{"/sys/module/nvme_core/parameters/io_timeout", "the kernel has no such file (module nvme_core is not loaded: add it to modules in the kernel block)"},
		{"/sys/bus/x/y/z", "the kernel has no such file (is it misspelt, of another kernel version, or of hardware or a module that is not there?)"},
	} {
		s, err := openSysfs(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Read(t.Context(), h); err != nil || !v.Absent {
			t.Errorf("%s: %v, %v", tc.path, v, err)
		}
		if err := s.unsupported(h); fmt.Sprint(err) != "sysfs "+tc.path+": "+tc.want {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
	for p, want := range map[string]string{"/sys/class/net/eth0/gro_flush_timeout": "eth0", "/sys/class/net/eth0": "", "/sys/block/vda/x": ""} {
		if got := (sysfs{p}).Device(); got != want {
			t.Errorf("%s: device %q", p, got)
		}
	}
	// The kernel made fewer than it was asked for.
	pages := sysfs{"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"}
	if err := h.WriteSysfs(pages.path, "300"); err != nil {
		t.Fatal(err)
	}
	want := "sysfs /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages: the kernel found room for 300 of 512 pages of 2M: memory is used or fragmented " +
		"(reserve them at boot, by hugepagesz=2M and hugepages=512 in set of the kernel block's cmdline)"
	if err := pages.checkPages(h, Value{Text: "512"}); fmt.Sprint(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	for _, enough := range []string{"300", "7"} {
		if err := pages.checkPages(h, Value{Text: enough}); err != nil {
			t.Error(err)
		}
	}
	if pages.Inexact(Value{Text: "1"}, Value{Text: "0"}) == "" || s.Inexact(Value{Text: "always"}, Value{Text: "never"}) != "" {
		t.Error("what cannot be undone")
	}
	for _, name := range []string{"", "/sys", "/etc/passwd", "/sys/../x", "kernel/mm"} {
		if s, err := openSysfs(name); err == nil {
			t.Errorf("%q opens %s", name, s.Key())
		}
	}
}
