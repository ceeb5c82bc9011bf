//go:build !crashpoints

package crashpoint

// Enabled reports whether points are compiled in.
const Enabled = false

// Do calls act and returns its error.
func Do(_ Point, act func() error) error { return act() }

// Pass calls act, which cannot fail.
func Pass(_ Point, act func()) { act() }

// Without returns the environment of a child that is no part of the crash: with the tag, without the variables of this
// package.
func Without(environ []string) []string { return environ }
