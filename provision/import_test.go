package provision

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/zclconf/go-cty/cty"

	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

// A case's first line is what is imported; the files are the machine, and the
// last one, want.hcl, is what comes out, an error too.
func TestImport(t *testing.T) {
	names, err := filepath.Glob("testdata/import/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(err, names)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want := map[string]string{}, ""
			for i, f := range a.Files {
				if f.Name == "want.hcl" {
					want = string(f.Data)
					a.Files = a.Files[:i]
					break
				}
				files[f.Name] = string(f.Data)
			}
			h, _, text := treeHost(t, files)
			before := text()
			first, _, _ := strings.Cut(string(a.Comment), "\n")
			args := strings.Fields(first)
			var im Imported
			switch args[0] {
			case "sysctl":
				im, err = ImportSysctl(h, args[1:])
			case "tuned":
				im, err = ImportTuned(h, args[1])
			case "live":
				im, err = ImportLive(h, args[1:])
			default:
				t.Fatalf("%q", first)
			}
			got := string(im.Text)
			if err != nil {
				got = err.Error() + "\n"
			} else {
				checkImported(t, im)
			}
			sameText(t, before, text())
			if *update {
				a.Files = append(a.Files, txtar.File{Name: "want.hcl", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// checkImported holds for all imports: the text is canonical, and a profile
// without mistakes.
func checkImported(tb testing.TB, im Imported) {
	tb.Helper()
	src := profile.Source{Name: "imported.hcl", Text: im.Text}
	text, diags := profile.Format(src)
	if diags.HasErrors() {
		tb.Fatalf("%v\n%s", diags, im.Text)
	}
	if !bytes.Equal(text, im.Text) {
		tb.Errorf("not canonical: %s", cmp.Diff(string(im.Text), string(text)))
	}
	p, diags := profile.Load(src, profile.Options{Schemas: Schemas(Kinds()), Host: cty.UnknownVal(host.FactsType())})
	if diags.HasErrors() {
		tb.Fatalf("%v\n%s", diags, im.Text)
	}
	e := &Engine{Kinds: Kinds()}
	if _, diags := e.Desired(p, nil, PhaseAll); diags.HasErrors() {
		tb.Fatalf("%v\n%s", diags, im.Text)
	}
	for _, l := range im.Lost {
		if strings.Count(string(im.Text), "#   "+l+"\n") == 0 {
			tb.Errorf("lost and not said: %q\n%s", l, im.Text)
		}
	}
}

func FuzzImportSysctl(f *testing.F) {
	f.Add("net.core.somaxconn = 1\n-vm.x = a b\nnet/ipv4/conf/*/a=\"${x}\"\n-y\n= \x00\xff\n")
	f.Add("a.b=1\na/b=01\na.b = \u2028 */ //\n")
	f.Fuzz(func(t *testing.T, text string) {
		im := newImporter("fuzz")
		im.sysctlFile("/f", text)
		checkImported(t, im.done())
	})
}

func FuzzImportTuned(f *testing.F) {
	f.Add("[main]\nsummary=x\ninclude=a\n[variables]\na=${b}\nb=${a}\n[sysctl]\nvm.x=>${a}\nvm.y=>1\n[bootloader]\ncmdline=+a=b a=c -x\n")
	f.Add("x\n[cpu]\ngovernor=a|b\nforce_latency=10\n[vm]\ntransparent_hugepages=always\n[sysfs]\n/sys/a=\"b\"\n[modules]\na=+r\n[irqbalance]\nenabled=0\nbanned_cpus=1\n")
	h, err := host.New(host.Options{Root: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sections, err := parseTuned([]byte(text))
		if err != nil {
			return
		}
		im := newImporter("fuzz")
		tu := tuned{h: h, im: im, variables: map[string]string{}}
		for _, u := range sections {
			if u.name == "variables" {
				tu.define(u)
				continue
			}
			tu.merge(u)
		}
		tu.translate()
		checkImported(t, im.done())
	})
}
