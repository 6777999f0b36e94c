package provision

import (
	"fmt"
	"testing"
)

func TestModuleSetting(t *testing.T) {
	const dir = "lib/modules/6.1.0-25-amd64/"
	h, _, _ := treeHost(t, map[string]string{
		"proc/sys/kernel/osrelease":    "6.1.0-25-amd64\n",
		dir + "modules.builtin":        "kernel/net/ipv4/tcp_cubic.ko\n",
		dir + "modules.dep":            "kernel/net/ipv4/tcp_bbr.ko:\nkernel/net/netfilter/nf_conntrack.ko.xz:\nkernel/net/sctp/sctp.ko:\n",
		dir + "modules.alias":          "alias ip_conntrack nf_conntrack\n",
		"etc/modprobe.d/no.conf":       "blacklist sctp\n",
		"sys/module/overlay/initstate": "live\n",
	})
	for _, tc := range []struct{ name, live, unsupported string }{
		{"tcp_cubic", "loaded", ""},
		{"overlay", "loaded", ""},
		{"tcp_bbr", "not loaded", ""},
		{"ip_conntrack", "not loaded", ""},
		{"sctp", "(absent)", "module sctp: it must not be loaded, as /etc/modprobe.d/no.conf:1: blacklist sctp (remove that line, or take the module out of the profile)"},
		{"nf_contrack", "(absent)", "module nf_contrack: kernel 6.1.0-25-amd64 has no such module (did you mean nf_conntrack?)"},
		{"zfs", "(absent)", "module zfs: kernel 6.1.0-25-amd64 has no such module (is it in another package of the kernel's modules, such as linux-modules-extra?)"},
	} {
		s, err := openModule(tc.name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Read(t.Context(), h)
		if err != nil || v.String() != tc.live {
			t.Errorf("%s: %s, %v", tc.name, v, err)
		}
		if tc.unsupported != "" {
			if err := s.unsupported(h); fmt.Sprint(err) != tc.unsupported {
				t.Errorf("got  %v\nwant %s", err, tc.unsupported)
			}
		}
		if err := s.Write(t.Context(), h, Value{Text: moduleIdle}); err != nil {
			t.Errorf("going back: %v", err)
		}
	}
	if s := (module{"tcp_bbr"}); s.Inexact(Value{Text: moduleIdle}, Value{Text: moduleLoaded}) == "" {
		t.Error("a loaded module goes away")
	}
	h, _, _ = treeHost(t, map[string]string{"proc/sys/kernel/osrelease": "6.18.0\n"})
	want := "module tcp_bbr: it is not loaded, and there is no list of modules in /lib/modules/6.18.0 (install the modules of the kernel that runs, or reboot if it was " +
		"upgraded; a kernel without modules does not tell what is built in: then take the module out of the profile)"
	if err := (module{"tcp_bbr"}).unsupported(h); fmt.Sprint(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	for _, name := range []string{"", "br-netfilter", "a/b", "x.ko"} {
		if s, err := openModule(name); err == nil {
			t.Errorf("%q opens %s", name, s.Key())
		}
	}
}
