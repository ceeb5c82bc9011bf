//go:build !linux && !darwin

package main

import (
	"io"
	"os"
)

// terminal is not supported here: what would be redrawn is printed as to a file.
type terminal struct {
	keys    chan byte
	resized chan os.Signal
}

func openTerminal(io.Writer) (*terminal, error) { return nil, nil }

func (*terminal) rawKeys() error { return nil }

func (*terminal) size() (width, height int) { return pageWidth, 24 }

func (*terminal) close() {}

// terminalWidth is not known here.
func terminalWidth(io.Writer) int { return 0 }
