package statefile

import (
	"io/fs"
	"os"
)

// leadsTo is LeadsTo for every system.
func leadsTo(path string, mine fs.FileInfo) (bool, error) {
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there), err
}
