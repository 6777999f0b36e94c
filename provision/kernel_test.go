package provision

import "testing"

func TestKernelWanted(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"all of it", `
kernel {
  modules    = ["nf-conntrack", best_effort("tcp_bbr"), null]
  thp        = "madvise"
  thp_defrag = best_effort("defer+madvise")
  on_error   = "fail"
  hugepages "2M" {
    nodes = { "0" = 256, "1" = best_effort(at_least(128)) }
  }
  hugepages "1G" { count = best_effort(2) }
  cmdline {
    set    = { preempt = "none", nosoftlockup = true, "rcutree.nohz_full_patience_delay" = 1000, console = ["tty0", "ttyS0,115200"], dyndbg = "file a.c +p", gone = null }
    remove = ["quiet", "root=/dev/sdb"]
  }
}`, `
module/nf_conntrack (fail) = loaded
module/tcp_bbr (tolerate) = loaded
sysfs//sys/kernel/mm/transparent_hugepage/enabled (fail) = madvise
sysfs//sys/kernel/mm/transparent_hugepage/defrag (tolerate) = defer+madvise
sysfs//sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages (fail) = 256
sysfs//sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages (tolerate) = 128
sysfs//sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages (tolerate) = 2
cmdline/grub (fail) = preempt=none nosoftlockup rcutree.nohz_full_patience_delay=1000 console=tty0 console=ttyS0,115200 dyndbg="file a.c +p" -quiet -root=/dev/sdb`},
		{"nothing", `kernel {}`, ``},
		{"unknown", `
kernel {
  modules = [host.distribution.id]
  thp     = host.arch
  hugepages "2M" { count = host.cpu.count }
  hugepages "1G" { nodes = { "0" = host.cpu.count } }
  cmdline { set = { isolcpus = host.cpu.online, preempt = "none" } }
}`, ``},
		{"mistakes", `
kernel {
  modules    = ["a/b", "ok", "o.ko", "OK", "tcp-bbr", "tcp_bbr"]
  thp        = "sometimes"
  thp_defrag = "defer"
  hugepages "2m" { count = 1 }
  hugepages "2M" {
    count = 1
    nodes = { "0" = 1 }
  }
  hugepages "2048k" { count = 1 }
  hugepages "64K" {}
  hugepages "1G" { count = -1 }
  hugepages "16M" { count = 1.5 }
  hugepages "16G" { nodes = { "00" = 1, a = 2, "1" = "x", "2" = true } }
}`, `
3,17: Invalid name of a module: A module's name is needed, and "a/b" has a character that no module's name has (write the name alone, as in nf_conntrack: no path, no .ko, no options).
3,30: Invalid name of a module: A module's name is needed, and "o.ko" has a character that no module's name has (write the name alone, as in nf_conntrack: no path, no .ko, no options).
3,55: Module given twice: "tcp_bbr" is already in the list at p.hcl:6:44. Remove one of the two.
4,16: Invalid value of thp: Write "always" or "madvise" or "never".
6,3: Invalid size of huge pages: "2m" is no size. Write it as in "2M" or "1G".
9,13: Either count or nodes: hugepages "2M" has both of them. Write count = 512 for the machine, or nodes = { "0" = 512 } for some NUMA nodes.
11,3: Size given twice: "2048k" is another spelling of "2M", which is set at p.hcl:10:3. Remove one of the two.
12,3: Either count or nodes: hugepages "64K" has neither of them. Write count = 512 for the machine, or nodes = { "0" = 512 } for some NUMA nodes.
13,28: Invalid number of huge pages: There cannot be fewer than none.
14,29: Invalid value of a number of huge pages: count: 1.5 is no whole number, which kernel keys are (use floor() or ceil(), or a string for a key that is a text).
15,31: Invalid NUMA node: "00" is no number of a NUMA node; host.cpu.numa lists them.
15,41: Invalid NUMA node: "a" is no number of a NUMA node; host.cpu.numa lists them.
15,54: Invalid number of huge pages: A whole number or at_least(n) is needed.
15,65: Invalid number of huge pages: A whole number or at_least(n) is needed.
module/ok (warn) = loaded
module/OK (warn) = loaded
module/tcp_bbr (warn) = loaded
sysfs//sys/kernel/mm/transparent_hugepage/defrag (warn) = defer`},
		{"mistakes of the command line", `
kernel {
  cmdline {
    set = {
      "a b"  = 1
      memmap = "64M$0x1000"
      x      = "a\nb"
      y      = false
      z      = []
      v      = [1, null]
      q      = "it's"
      n      = 1.5
      m      = { a = 1 }
      s      = " a"
      a-b    = 1
      a_b    = 2
      preempt = "none"
    }
    remove       = ["preempt", "a b", "quiet"]
    reboot       = "always"
    max_attempts = 0
    on_missing   = "ignore"
  }
}`, `
5,7: Invalid argument: "a b" is no name of an argument: those are made of letters, digits, _, - and dots.
6,7: Invalid argument: memmap: its value has '$', which GRUB's own language would read (write it into /etc/default/grub by hand, quoted for GRUB).
7,7: Invalid argument: x: its value has '\n', and the command line is printable ASCII.
8,16: Invalid argument: y: an argument without a value is there or not: true sets it, null leaves it alone, and remove takes it out.
9,16: Invalid argument: z: the list is empty (null leaves the argument out, and remove takes it out).
10,16: Invalid argument: v: a list holds no null.
11,7: Invalid argument: q: its value has '\'', which GRUB's own language would read (write it into /etc/default/grub by hand, quoted for GRUB).
12,16: Invalid argument: n: 1.5 is no whole number, which kernel keys are (use floor() or ceil(), or a string for a key that is a text).
13,16: Invalid argument: m: a string, a number, true or a list of them is needed, not a value of type object.
14,7: Invalid argument: s: its value begins or ends with a blank, or has two in a row, which GRUB does not keep.
16,7: Argument given twice: To the kernel, "a_b" is another spelling of one that is already there: dashes and underscores are the same. Remove one of the two.
19,21: Argument set and removed: preempt is in set too, which already takes the place of others. Remove one of the two.
19,32: Invalid argument: "a b" is no name of an argument: those are made of letters, digits, _, - and dots.
20,20: Invalid value of reboot: Write "never" or "if-needed".
21,20: Invalid value of max_attempts: A whole number from 1 to 10 is needed.
22,20: Invalid value of on_missing: Write "fail" or "skip".`},
		{"secrets", `
variable "s" {
  type      = string
  default   = "x"
  sensitive = true
}
kernel {
  modules = [var.s]
  thp     = var.s
  cmdline { set = { x = var.s } }
}`, `
8,13: Sensitive value: modules cannot be set from a sensitive value: plan and journal show it. Use a value that is not secret.
9,13: Sensitive value: thp cannot be set from a sensitive value: the plan shows it. Use a value that is not secret.
10,25: Sensitive value: The command line cannot be set from a sensitive value: everybody can read /proc/cmdline. Use a value that is not secret.`},
	} {
		t.Run(tc.name, func(t *testing.T) { sameText(t, tc.want, kernelText(t, tc.text)) })
	}
}
