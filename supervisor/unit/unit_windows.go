package unit

import (
	"io/fs"
)

// executable reports whether the file is regular. Windows decides by the extension when it starts the file.
func executable(info fs.FileInfo) bool { return info.Mode().IsRegular() }
