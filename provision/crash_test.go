package provision

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// crashDir tells the test binary to be the process that is killed.
const crashDir = "PROVISION_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		os.Exit(crashChild(dir))
	}
	os.Exit(m.Run())
}

// crashPlan asks for 40 values in three kinds; version makes profiles differ.
func crashPlan(m machine, version string) []Wanted {
	var kv []string
	for _, kind := range []string{"sysctl", "nic", "file"} {
		for i := range 40 / 3 {
			kv = append(kv, fmt.Sprintf("%s/%02d", kind, i), strings.Repeat(version, i+1))
		}
	}
	return wants(m, kv...)
}

func crashEngine(dir string) (*Engine, tree) {
	m := tree{filepath.Join(dir, "machine")}
	e := &Engine{Kinds: fakeKinds(m), State: filepath.Join(dir, "state"), Boot: "boot-1"}
	return e, m
}

// crashChild says "ready", waits for the first byte of stdin, applies (or rolls
// back, with "back"), and says "done".
func crashChild(dir string) int {
	e, m := crashEngine(dir)
	fmt.Println("ready")
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return 1
	}
	ctx := context.Background()
	switch version := strings.TrimSpace(line); version {
	case "back":
		_, err = e.Rollback(ctx, RollbackOptions{To: new(int)})
	default:
		_, _, err = e.Apply(ctx, crashPlan(m, version), ApplyOptions{Phase: PhaseAll})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("done")
	return 0
}

// kill runs a child and kills it after d, counted from its start of work; 0
// lets it end. It returns how long the work took and whether it ended.
func kill(t *testing.T, dir, what string, d time.Duration) (time.Duration, bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), crashDir+"="+dir)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("child says %q", lines.Text())
	}
	start := time.Now()
	fmt.Fprintln(in, what)
	if d > 0 {
		timer := time.AfterFunc(d, func() { _ = c.Process.Kill() })
		defer timer.Stop()
	}
	ended := lines.Scan()
	if ended && lines.Text() != "done" {
		t.Fatalf("child says %q", lines.Text())
	}
	return time.Since(start), ended
}

// SIGKILL at random moments of apply, of a second profile's apply, and of the
// rollback itself: a rollback then leaves the machine as it was.
func TestKilled(t *testing.T) {
	const enough = 60
	dir, _, _, _ := crashMachine(t)
	took, _ := kill(t, dir, "a", 0)
	var stopped atomic.Int32
	t.Run("rounds", func(t *testing.T) {
		for worker := range 4 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(worker)))
				for round := 0; stopped.Load() < enough && round < enough; round++ {
					stopped.Add(int32(crashRound(t, rnd, took)))
				}
			})
		}
	})
	if n := stopped.Load(); n < enough {
		t.Errorf("only %d runs were killed at work (of %v)", n, took)
	}
}

// crashMachine has values for most of what crashPlan asks.
func crashMachine(t *testing.T) (dir string, e *Engine, m tree, before string) {
	t.Helper()
	dir = t.TempDir()
	e, m = crashEngine(dir)
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, w := range crashPlan(m, "x") {
		if i%4 != 0 || kindName(w.Key()) != "file" {
			if err := m.set(w.Key(), Value{Text: fmt.Sprintf("original %d\n", i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, e, m, m.text(t)
}

// crashRound returns how many runs it has killed.
func crashRound(t *testing.T, rnd *rand.Rand, took time.Duration) int {
	t.Helper()
	dir, e, m, before := crashMachine(t)
	var moments []time.Duration
	stopped := 0
	for _, what := range [][]string{{"a"}, {"a", "b"}, {"a", "back"}}[rnd.IntN(3)] {
		d := 1 + time.Duration(rnd.Int64N(int64(took)))
		moments = append(moments, d)
		if _, ended := kill(t, dir, what, d); !ended {
			stopped++
		}
	}
	r, err := e.Rollback(t.Context(), RollbackOptions{To: new(int)})
	if err != nil {
		t.Fatalf("killed at %v: %v", moments, err)
	}
	if d := cmp.Diff(before, m.text(t)); d != "" {
		t.Fatalf("killed at %v, rollback %+v (-want +got):\n%s", moments, r, d)
	}
	left, err := filepath.Glob(filepath.Join(e.State, ".*[0-9]"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return stopped
}
