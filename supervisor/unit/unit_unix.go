//go:build unix

package unit

import (
	"io/fs"
)

func executable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }
