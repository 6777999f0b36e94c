package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// didYouMean returns ` Did you mean "x"?` for the candidate that given is most
// likely a misspelling of, and "" where none is close.
func didYouMean(given string, candidates []string) string {
	if s := closest(given, candidates); s != "" {
		return fmt.Sprintf(" Did you mean %q?", s)
	}
	return ""
}

// closest returns the candidate within an edit or two of given (three for long
// names), or "". Short names need a closer one, or everything would be alike.
func closest(given string, candidates []string) string {
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	limit := 3
	switch n := len(given); {
	case n < 4:
		limit = min(1, n-1)
	case n < 9:
		limit = 2
	}
	best, bestAt := "", limit+1
	for _, c := range candidates {
		if d := levenshtein.Distance(fold(given), fold(c), nil); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// list is "a, b and c", sorted.
func list(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	n := len(names) - 1
	return strings.Join(names[:n], ", ") + " and " + names[n]
}

func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
