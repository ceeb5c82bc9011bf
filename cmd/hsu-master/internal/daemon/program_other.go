//go:build !linux

package daemon

// releaseProgram does nothing: the pages of the program stay mapped.
func releaseProgram() {}
