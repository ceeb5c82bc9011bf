package supervisor

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const (
	lastNamedSignal = 31
	lastSignal      = 64
)

// ParseSignal reads a signal: its name with or without SIG, or its number.
func ParseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > lastSignal {
			return 0, fmt.Errorf("signal %d: must be 1 to %d", n, lastSignal)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unit.SignalNumber(name); sig != 0 {
		return sig, nil
	}
	var known []string
	for n := range lastNamedSignal {
		known = append(known, strings.TrimPrefix(identity.SignalName(syscall.Signal(n+1)), "SIG"))
	}
	return 0, fmt.Errorf("no such signal: %q%s", text, nearest.DidYouMean(name, known))
}
