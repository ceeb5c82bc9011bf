package safefile

// CheckProgram returns nil: Windows has no root.
func CheckProgram(string) error { return nil }

// CheckProgramOf returns nil: Windows has no root.
func CheckProgramOf(string, uint32) error { return nil }

// CheckFolder returns nil: Windows has no root.
func CheckFolder(string) error { return nil }

func checkFolder(string) (exists bool, err error) { return false, nil }

// CheckEntry returns nil: Windows has no root.
func CheckEntry(string) (sticky bool, err error) { return false, nil }
