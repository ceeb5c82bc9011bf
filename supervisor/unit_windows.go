package supervisor

import (
	"io/fs"
	"os"
)

// executable reports whether the file is regular. Windows decides by the extension when it starts the file.
func executable(info fs.FileInfo) bool { return info.Mode().IsRegular() }

// ownerOf returns no UID: Windows has none.
func ownerOf(string) (int, error) { return os.Geteuid(), nil }
