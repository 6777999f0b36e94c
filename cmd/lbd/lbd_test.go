package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nodeprov/nodeprov/internal/testbed"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lbd": main})
}

// TestScripts runs each script with a directory in a bpffs ($BPFFS), a cgroup
// ($CGROUP) and a run directory ($RUN) of its own.
func TestScripts(t *testing.T) {
	bpffs, cgroup := testbed.BPFFS(t), testbed.Cgroup(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			name := strings.ReplaceAll(filepath.Base(e.WorkDir), ".", "-")
			for key, dir := range map[string]string{"BPFFS": filepath.Join(bpffs, name), "CGROUP": filepath.Join(cgroup, name)} {
				if err := os.Mkdir(dir, 0o700); err != nil {
					return err
				}
				e.Setenv(key, dir)
			}
			// Or each command takes a second longer under the race detector.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("RUN", filepath.Join(e.WorkDir, "run"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"move": move,
		},
	})
}

// move renames a file, as one should replace a manifest.
func move(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: move from to")
	}
	ts.Check(os.Rename(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
}
