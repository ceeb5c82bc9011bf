package safefile

import "os"

// Windows has no FIFOs in its folders, and only administrators make symbolic links.
const noWait, noFollow = 0, 0

func restoreWait(*os.File) error { return nil }
