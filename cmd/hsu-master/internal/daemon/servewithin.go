//go:build crashpoints

package daemon

import (
	"os"
	"time"
)

// So that a program that never serves can be tested in a short time, one that is built with the tag "crashpoints" has
// the bound that HSU_SERVE_WITHIN specifies.
func init() {
	if within, err := time.ParseDuration(os.Getenv("HSU_SERVE_WITHIN")); err == nil {
		serveWithin = within
	}
}
