//go:build !linux

package statefile

import "os"

// Datasync makes the content of f durable.
func Datasync(f *os.File) error { return f.Sync() }
