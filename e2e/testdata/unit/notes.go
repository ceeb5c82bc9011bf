package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// notes are a worker's records of its own life, which a test compares with the master's reports. They survive the
// worker's death.
type notes struct{ file *os.File }

// takeNotes begins the notes of this instance, in a new file. An instance that finds its port taken, as may happen
// between the choice of the port and the listen, leaves an empty file with another name: the master did not cause
// its end.
func takeNotes(folder string, listening error) notes {
	if folder == "" {
		return notes{}
	}
	name := fmt.Sprintf("%s.%d.%s", os.Getenv("HSU_WORKER_ID"), os.Getpid(), os.Getenv("HSU_WORKER_TOKEN"))
	if errors.Is(listening, syscall.EADDRINUSE) {
		name += ".port-taken"
	}
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		os.Exit(1)
	}
	return notes{file}
}

// handled notes a request before it is answered: one line, with one write.
func (n notes) handled(request string) {
	if n.file != nil {
		_, _ = n.file.WriteString(request + "\n")
	}
}
