//go:build !unix

package tail

import "os"

// inodeOf is not supported here.
func inodeOf(os.FileInfo) uint64 { return 0 }
