package exit

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/store"
)

// An error has the same code and hint below all that is wrapped around it.
func TestCodesAndHints(t *testing.T) {
	damaged := &store.DamagedError{Err: errors.New("page 3")}
	for _, test := range []struct {
		name string
		err  error
		code int
		hint string // is in the hint; "" means that there is none
	}{
		{"of no kind", errors.New("no"), Failed, ""},
		{"wrong usage", Usagef("--port %d", 0), WrongUsage, ""},
		{"wrong usage with a hint", Hint(Usage(errors.New("no")), "give %s", "another"), WrongUsage, "give another"},
		{"no master", ErrNoMaster, NoMaster, ""},
		{"a master that does not answer", ErrHeld, Locked, ""},
		{"locked", &store.LockedError{PID: 7}, Locked, ""},
		{"damaged", damaged, Damaged, "--on-damage recover"},
		{"damaged with another hint", Hint(damaged, "try again"), Damaged, "try again"},
		{"a damaged backup", &store.DamagedError{Backup: true, Err: errors.New("page 3")}, Damaged, ""},
		{"unsound", ErrUnsound, Damaged, ""},
		{"too many files", syscall.EMFILE, Failed, "ulimit -n"},
	} {
		err := fmt.Errorf("start: %w", test.err)
		if got := Code(err); got != test.code {
			t.Errorf("%s: code %d, want %d", test.name, got, test.code)
		}
		if got := NextStep(err); !strings.Contains(got, test.hint) || test.hint == "" && got != "" {
			t.Errorf("%s: hint %q, want %q", test.name, got, test.hint)
		}
	}
}
