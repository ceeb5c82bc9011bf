package store

import "github.com/core-tools/hsu-master/store/statefile"

// DamagedError means that a file of the state, or a backup, is damaged. The file was left unchanged.
type DamagedError = statefile.DamagedError
