//go:build !linux

package main

// releaseProgram does nothing: only Linux keeps the pages that a program has read mapped until memory is short.
func releaseProgram() {}
