//go:build !crashpoints

package main

// watchLeaks does nothing in builds without crashpoints.
func watchLeaks() func(code int) int { return func(code int) int { return code } }
