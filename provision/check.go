package provision

import (
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Check is a command that verify runs: it passes when the command exits with 0
// within the time.
type Check struct {
	Name    string
	Command []string // the program and its arguments; no shell
	Timeout time.Duration
	Range   hcl.Range
}

// checkKind are the commands that verify runs.
func checkKind() Kind {
	return Kind{Name: "check"}
}
