//go:build !linux

package main

// releaseProgram does nothing: the pages of the program stay mapped.
func releaseProgram() {}
