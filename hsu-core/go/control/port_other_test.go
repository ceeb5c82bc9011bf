//go:build !linux

package control

import "testing"

// quietPort returns a port on which nothing listens yet. Another program may take it.
func quietPort(t *testing.T) int {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
