//go:build !linux

package statefile

import "io/fs"

// LeadsTo reports whether path leads to the file that mine describes.
func LeadsTo(path string, mine fs.FileInfo) (bool, error) { return leadsTo(path, mine) }
