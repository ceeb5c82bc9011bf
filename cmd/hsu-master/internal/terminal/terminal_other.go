//go:build !linux && !darwin

package terminal

import (
	"io"
	"os"
)

// Terminal is not supported here: what would be redrawn is printed as to a file.
type Terminal struct {
	Keys    chan byte
	Resized chan os.Signal
}

// Open returns nil: no terminal is supported here.
func Open(io.Writer) (*Terminal, error) { return nil, nil }

func (*Terminal) RawKeys() error { return nil }

func (*Terminal) Size() (width, height int) { return usualWidth, usualHeight }

func (*Terminal) Close() {}

// Width returns 0: it is not known here.
func Width(io.Writer) int { return 0 }
