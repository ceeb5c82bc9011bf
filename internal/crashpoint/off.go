//go:build !crashpoints

package crashpoint

// Enabled tells whether points are compiled in.
const Enabled = false

// Do does the act and returns its error.
func Do(_ Point, act func() error) error { return act() }

// Pass does an act that cannot fail.
func Pass(_ Point, act func()) { act() }
