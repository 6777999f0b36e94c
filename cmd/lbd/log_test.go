package main

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJournalLog(t *testing.T) {
	var b bytes.Buffer
	log := newLog(env{stderr: &b, journal: true}, slog.LevelInfo)
	log.Debug("no")
	log.Info("ready", "hooks", "8/8")
	log.With("a", 1).WithGroup("g").Warn("not synced", "level", "x")
	log.Error("refused")
	want := "<6>msg=ready hooks=8/8\n<4>msg=\"not synced\" a=1 g.level=x\n<3>msg=refused\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}
