package provision

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/nodeprov/nodeprov/profiles"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// picture is a machine of host's testdata, with network devices, which are no
// files.
func picture(t *testing.T, name string) (*host.Host, host.Facts) {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("host/testdata/picture", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	h, _, _ := treeHost(t, files)
	f, err := h.FileFacts()
	if err != nil {
		t.Fatal(err)
	}
	mellanox := host.NICFacts{Driver: "mlx5_core", MTU: 1500, MinMTU: 68, MaxMTU: 9978, TSOMaxSize: 524280, Up: true,
		Channels: host.ChannelFacts{Combined: 2, MaxCombined: 63}, Rings: host.RingFacts{RX: 1024, TX: 1024, MaxRX: 8192, MaxTX: 8192}}
	veth := host.NICFacts{Name: "veth0", Driver: "veth", MTU: 1500, MaxMTU: 65535, Virtual: true, TSOMaxSize: 524280}
	nics := map[string][]host.NICFacts{
		"two-sockets": {mellanox, mellanox, {Name: "eno1", Driver: "tg3", MTU: 1500, MaxMTU: 1500, TSOMaxSize: 65536}, veth},
		"one-cpu-vm":  {{Name: "eth0", Driver: "virtio_net", MTU: 1450, MaxMTU: 1450, TSOMaxSize: 65536, Channels: host.ChannelFacts{Combined: 1, MaxCombined: 1}}, veth},
		"big-little":  {{Name: "end0", Driver: "st_gmac", MTU: 1500, MaxMTU: 9000, TSOMaxSize: 0}},
		"cpus-offline": {{Name: "ens5", Driver: "ena", MTU: 9001, MaxMTU: 9216, TSOMaxSize: 65536, PCI: "0000:00:05.0",
			Channels: host.ChannelFacts{Combined: 3, MaxCombined: 4}, Rings: host.RingFacts{MaxRX: 16384, MaxTX: 1024}}},
	}
	f.NICs = nics[name]
	if name == "two-sockets" {
		f.NICs[0].Name, f.NICs[0].PCI = "eth0", "0000:3b:00.0"
		f.NICs[1].Name, f.NICs[1].PCI = "eth1", "0000:3b:00.1"
	}
	return h, f
}

func pictures() []string { return []string{"two-sockets", "one-cpu-vm", "big-little", "cpus-offline"} }

func TestDoctor(t *testing.T) {
	for _, name := range pictures() {
		t.Run(name, func(t *testing.T) {
			h, f := picture(t, name)
			fs := Doctor(t.Context(), h, f, Kinds())
			if len(fs) != 17 {
				t.Errorf("%d rows; the list has 17", len(fs))
			}
			for _, r := range fs {
				if r.Possible == Yes && r.On != Yes && r.Do == "" && r.Profile == "" {
					t.Errorf("%s: what to do?", r.Item)
				}
				if r.Possible != Yes && r.On != Yes && r.Why == "" {
					t.Errorf("%s: why not?", r.Item)
				}
				if r.Profile != "" {
					checkSnippet(t, f, r.Profile)
				}
			}
			var b strings.Builder
			if err := fs.Write(&b, Text{}); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/doctor/"+name+".txt", b.String())
		})
	}
	h, f := picture(t, "one-cpu-vm")
	var b strings.Builder
	if err := Doctor(t.Context(), h, f, Kinds())[1:2].Write(&b, Text{Color: true}); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[32myes     \x1b[0m  \x1b[32myes\x1b[0m\n"; !strings.Contains(b.String(), want) {
		t.Errorf("%q", b.String())
	}
	j, err := json.Marshal(Finding{Item: "i", Possible: NotYet, On: No})
	if err != nil || string(j) != `{"item":"i","possible":"not yet","on":"no"}` {
		t.Errorf("%s, %v", j, err)
	}
}

// What the doctor says to write is what the language takes.
func checkSnippet(t *testing.T, f host.Facts, text string) {
	t.Helper()
	if !strings.HasPrefix(text, "nodeprov {") {
		text = "nodeprov {\n  schema = 1\n}\n" + text
	}
	src := profile.Source{Name: "p.hcl", Text: []byte(text)}
	p, diags := profile.Load(src, profile.Options{Schemas: Schemas(Kinds()), Host: f.Value(),
		Include: func(_, ref string) (profile.Source, error) {
			return profiles.Source(strings.TrimPrefix(ref, profiles.Scheme))
		}})
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, text)
	}
	e := &Engine{Kinds: Kinds()}
	if _, diags := e.Desired(p, nil, PhaseAll); diags.HasErrors() {
		t.Errorf("%v\n%s", diags, text)
	}
	if canonical, _ := profile.Format(src); string(canonical) != text {
		t.Errorf("not canonical:\n%s", text)
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: %s", file, d)
	}
}

// In a network namespace other than the first, default_qdisc cannot be seen.
func TestDoctorHiddenQdisc(t *testing.T) {
	h, _, _ := treeHost(t, map[string]string{
		"/proc/sys/net/ipv4/tcp_congestion_control":           "bbr\n",
		"/proc/sys/net/ipv4/tcp_available_congestion_control": "cubic bbr\n",
	})
	d := newDoctor(t.Context(), h, host.Facts{}, Kinds())
	d.f.Kernel.Version = "6.12.0"
	if r := d.bbr(); !strings.HasPrefix(r.Why, "paced by TCP itself: net.core.default_qdisc is not fq") {
		t.Errorf("%q", r.Why)
	}
}
